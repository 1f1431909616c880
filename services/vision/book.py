"""The last closed bars of one symbol and interval, and the window to draw of them. Pure.

A window has a column for each scheduled bar and is on the scale of its last one; what cannot be drawn is refused by name.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from schemas import Candle, Instrument, Restatement, RunMode
from services.core.calendar import SessionCalendar
from services.core.folding.bar_fold import Fold
from services.core.restatement import factors, jumps, restates
from services.vision.render import CLOSE, COLUMNS, VOLUME, ChartSpec, Floats


class Refusal(StrEnum):
    """Why a window is not drawn."""

    TOO_FEW_BARS = "too_few_bars"
    GAPS = "gaps"
    SUSPECTED_SPLIT = "suspected_split"


@dataclass(frozen=True, slots=True)
class WindowRules:
    """When a window is drawn: the chart's spec and the settings `vision.max_gap_bars` and `vision.max_jump`."""

    spec: ChartSpec
    max_gap_bars: int
    max_jump: float


@dataclass(frozen=True, slots=True)
class Window:
    """A window to draw: `bars` of the shape (spec.history, 5) as `render` takes them, NaN where a scheduled bar is missing."""

    symbol: str
    interval: str
    window_end_ms: int
    bars: Floats
    run_mode: RunMode
    """The run mode of the last bar, which the features carry too."""


@dataclass(frozen=True, slots=True)
class _Bar:
    offset: int
    """Of the record that brought it first."""
    slot: int
    """Its place in the session calendar, counted from the first bar folded: missing bars leave numbers out."""
    candle: Candle

    @property
    def values(self) -> tuple[float, float, float, float, float]:
        candle = self.candle
        return candle.open, candle.high, candle.low, candle.close, candle.volume


class ChartBook:
    """The bars that the next image needs."""

    def __init__(self, instrument: Instrument, interval: str, rules: WindowRules) -> None:
        """Start without bars; raise CalendarError when the instrument's calendar is not known."""
        self._calendar = SessionCalendar.of(instrument.calendar)
        self._instrument = instrument
        self._interval = interval
        self._rules = rules
        self._bars: deque[_Bar] = deque(maxlen=rules.spec.history)

    def take(self, candle: Candle, offset: int) -> Fold:
        """Fold a closed bar of this symbol and interval."""
        bars = self._bars
        if not bars or candle.ts_close_ms > bars[-1].candle.ts_close_ms:
            bars.append(_Bar(offset, self._next_slot(candle), candle))
            return Fold.FOLDED
        index = bisect_left(bars, candle.ts_close_ms, key=lambda bar: bar.candle.ts_close_ms)
        known = bars[index]
        if known.candle.ts_close_ms != candle.ts_close_ms:
            return Fold.LATE
        if candle.revision > known.candle.revision:
            bars[index] = replace(known, candle=candle)  # keeps the offset: a rebuild from the correction's would find it late
            return Fold.DUPLICATE if bars[index].values == known.values else Fold.REVISED
        if candle.revision < known.candle.revision or replace(known, candle=candle).values == known.values:
            return Fold.DUPLICATE
        return Fold.CONFLICT

    def needed_from(self) -> int | None:
        """Return the least offset of the bars held, None without any: reading the log from there restores the book."""
        return min((bar.offset for bar in self._bars), default=None)

    @property
    def window_end_ms(self) -> int:
        """Return `ts_close_ms` of the last bar; raise IndexError without any."""
        return self._bars[-1].candle.ts_close_ms

    def on_stride(self, stride: int) -> bool:
        """Return whether the last bar is a `stride`-th one by its calendar's schedule, which any book of the symbol agrees on."""
        return (self._calendar.slots_between(self._interval, 0, self.window_end_ms) - 1) % stride == 0

    def window(self, restatements: Sequence[Restatement]) -> Window | Refusal:
        """Return the window that ends with the last bar, or why it is not drawn; raise IndexError without any bar.

        Scheduled bars that the log lacks, and those before the first bar, are NaN. `restatements` are the symbol's, in order of time; bars
        that opened before one that is in force are restated to compare with the last bar.
        """
        rules = self._rules
        rows = self._restated(restatements)
        first = self._bars[-1].slot - rules.spec.history + 1
        if self._bars[0].slot > first + rules.spec.history - rules.spec.bars:
            return Refusal.TOO_FEW_BARS
        placed = np.full((rules.spec.history, COLUMNS), np.nan)
        closes = []
        for bar, row in zip(self._bars, rows, strict=True):
            if bar.slot >= first:
                placed[bar.slot - first] = row
                closes.append(row[CLOSE])
        if len(jumps(np.array(closes), rules.max_jump)):
            return Refusal.SUSPECTED_SPLIT
        missing = np.isnan(placed[-rules.spec.bars :, CLOSE])
        if (_longest_run(missing) if self._instrument.sparse else int(missing.sum())) > rules.max_gap_bars:
            return Refusal.GAPS
        return Window(self._instrument.symbol, self._interval, self.window_end_ms, placed, self._bars[-1].candle.run_mode)

    def _next_slot(self, candle: Candle) -> int:
        if not self._bars:
            return 0
        last = self._bars[-1]
        # A bar that the calendar does not schedule still takes a column of its own.
        return last.slot + 1 + self._calendar.slots_between(self._interval, last.candle.ts_close_ms, candle.ts_open_ms)

    def _restated(self, restatements: Sequence[Restatement]) -> list[list[float]]:
        rows = [list(bar.values) for bar in self._bars]
        opens = [bar.candle.ts_open_ms for bar in self._bars]
        for event in restatements:
            before = bisect_left(opens, event.effective_ms)
            if before == len(rows) or not before or not restates(event, self._instrument):
                continue
            by = factors(event, rows[before - 1][CLOSE])
            for row in rows[:before]:
                row[:VOLUME] = [price / by.price for price in row[:VOLUME]]
                row[VOLUME] *= by.volume
        return rows


def _longest_run(missing: NDArray[np.bool_]) -> int:
    longest = run = 0
    for gap in missing.tolist():
        run = run + 1 if gap else 0
        longest = max(longest, run)
    return longest
