"""Closed bars of one symbol and interval in packed arrays, each with a slot for the line that the prompt room makes of it.

Packed, because 1,000 symbols of 512 bars take about 180 MB so and 767 MB as pydantic objects.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, MutableSequence, Sequence
from statistics import median_low
from typing import Any

import numpy as np

from schemas import Dividend, MarketFeatures, Restatement
from services.core.folding.bar_fold import DUPLICATE, FOLDED, Fold
from services.core.restatement import Factors, factors, jumps
from services.fusion.state.scale import IN_PRICE, restated_bar, restated_features
from services.strategy.catalogue import FEATURE_UNITS, Unit

_SLACK = 64


class Bars:
    """Closed bars, oldest first, with strictly increasing `ts_close_ms`, and the forming bar after them."""

    __slots__ = (
        "_forming",
        "_forming_close",
        "_forming_ms",
        "_forming_volume",
        "close",
        "columns",
        "factors",
        "features",
        "gap",
        "high",
        "keep",
        "last_close_ms",
        "low",
        "open",
        "rendered",
        "rendered_as",
        "restated_before_ms",
        "revision",
        "sequence",
        "total",
        "ts_close",
        "ts_open",
        "units",
        "volume",
    )

    def __init__(self, keep: int, columns: Sequence[str] = (), units: Mapping[str, Unit] = FEATURE_UNITS) -> None:
        """Hold the last `keep` bars, and a few more between trimmings; of their features those in `columns`, which rows show."""
        self.keep = keep
        self.ts_open = array("q")
        self.ts_close = array("q")
        self.open = array("d")
        self.high = array("d")
        self.low = array("d")
        self.close = array("d")
        self.volume = array("d")
        self.columns = {name: array("d") for name in columns}
        """Features that rows show, by name; NaN where a bar lacks one."""
        self.units = units
        self.revision = array("q")
        self.gap = array("q")
        """Scheduled slots missing before each bar."""
        self.rendered: list[str | None] = []
        """What `services.fusion.prompt.lines` made of each bar: None before it is asked for, and again when the bar changes."""
        self.rendered_as: object = None
        """In which way it made them; another way makes all of them anew."""
        self.sequence = array("q")
        """The book's count of closed bars when each bar was folded: the order in which bars of several intervals came."""
        self.features: dict[str, float] = {}
        """Of the last closed bar."""
        self._forming: MarketFeatures | bytes | None = None
        """The bar, or its record's value: each update replaces it, and only the one that a prompt shows is read."""
        self._forming_ms = 0
        """When the forming bar closes, 0 when there is none."""
        self._forming_close = self._forming_volume = 0.0
        self.factors: dict[tuple[int, str], Factors] = {}
        """By effective time and kind of event, the factors that bars which open before it are restated by."""
        self.restated_before_ms = 0
        """Bars that open before are restated: when the latest of `factors` takes effect."""
        self.last_close_ms = 0
        """When the last closed bar closed, 0 when there is none."""
        self.total = 0
        """Closed bars folded, evicted ones included."""

    def __len__(self) -> int:
        return len(self.ts_close)

    @property
    def forming(self) -> MarketFeatures | None:
        """Return the bar that is still open, on the scale of the closed ones; None when there is none."""
        if isinstance(self._forming, bytes):
            self._forming = MarketFeatures.decode(self._forming)
        return self._forming

    def form(self, bar: MarketFeatures, value: bytes | None = None) -> Fold:
        """Take a bar that is still open. It says nothing new of a slot that has closed, and is late when a later one forms already.

        Its record's `value` is held in the bar's place where that is given: of 200 forming bars the objects fill a processor's cache.
        """
        if bar.ts_open_ms < self.restated_before_ms:
            bar, value = self._on_scale(bar), None
        fields = bar.__dict__
        ts_close_ms, close, volume = fields["ts_close_ms"], fields["close"], fields["volume"]
        if ts_close_ms == self._forming_ms:
            # Comparing whole messages takes as long as all the rest; most updates differ in volume or price.
            if volume == self._forming_volume and close == self._forming_close and bar == self.forming:
                return DUPLICATE
        elif ts_close_ms <= self.last_close_ms:
            return DUPLICATE
        elif ts_close_ms < self._forming_ms:
            return Fold.LATE
        self._forming, self._forming_ms, self._forming_close, self._forming_volume = value or bar, ts_close_ms, close, volume
        return FOLDED

    def place(self, bar: MarketFeatures) -> Fold:
        """Return what becomes of a closed bar, changing nothing."""
        last = self.last_close_ms
        if bar.ts_close_ms > last:
            return FOLDED if bar.ts_open_ms >= last else Fold.CONFLICT
        index = bisect_left(self.ts_close, bar.ts_close_ms)
        # How much more than `keep` is held depends on when the book was begun; what becomes of a record must not.
        if index < len(self) - self.keep or self.ts_close[index] != bar.ts_close_ms:
            return Fold.LATE
        newer = bar.revision > self.revision[index]
        given = self._on_scale(bar)
        if not self._same(index, given):
            return Fold.REVISED if newer else Fold.CONFLICT
        if bar.revision < self.revision[index]:
            return Fold.DUPLICATE
        newest = index == len(self) - 1 and _recomputed(self.features, given.features)
        return Fold.REVISED if newest or (newer and self._shows_other_features(index, given)) else Fold.DUPLICATE

    def append(self, bar: MarketFeatures, gap: int, sequence: int = 0) -> None:
        """Add a closed bar for which `place` said FOLDED, after `gap` missing slots."""
        if bar.ts_open_ms < self.restated_before_ms:
            bar = self._on_scale(bar)
        fields = bar.__dict__
        features, ts_close_ms = fields["features"], fields["ts_close_ms"]
        self.ts_open.append(fields["ts_open_ms"])
        self.ts_close.append(ts_close_ms)
        self.last_close_ms = ts_close_ms
        self.open.append(fields["open"])
        self.high.append(fields["high"])
        self.low.append(fields["low"])
        self.close.append(fields["close"])
        self.volume.append(fields["volume"])
        for name, column in self.columns.items():
            column.append(features.get(name, math.nan))
        self.revision.append(fields["revision"])
        self.gap.append(gap)
        self.sequence.append(sequence)
        self.rendered.append(None)
        self.total += 1
        self.features = features
        if self._forming_ms <= ts_close_ms:
            self._forming, self._forming_ms = None, 0
        if len(self.ts_close) > self.keep + _SLACK:
            self._trim(len(self.ts_close) - self.keep)

    def revise(self, bar: MarketFeatures) -> None:
        """Put a bar for which `place` said REVISED in place of the one it corrects."""
        index = bisect_left(self.ts_close, bar.ts_close_ms)
        bar = self._on_scale(bar)
        changed = not self._same(index, bar)
        self.ts_open[index] = bar.ts_open_ms
        self.open[index] = bar.open
        self.high[index] = bar.high
        self.low[index] = bar.low
        self.close[index] = bar.close
        self.volume[index] = bar.volume
        for name, column in self.columns.items():
            column[index] = bar.features.get(name, math.nan)
        self.revision[index] = bar.revision
        self.rendered[index] = None
        # The corrected bar entered into the newest one's features: those are unknown until their producer publishes that bar again.
        if index == len(self) - 1:
            self.features = bar.features
        elif changed:
            self.features = {}

    def note_revision(self, bar: MarketFeatures) -> None:
        """Remember the revision of a bar for which `place` said DUPLICATE, so that an older one cannot change the bar any more."""
        index = bisect_left(self.ts_close, bar.ts_close_ms)
        self.revision[index] = max(self.revision[index], bar.revision)

    def restate(self, event: Restatement) -> int:
        """Restate the bars that open before `event` took effect, so that they compare with later ones; return how many there are.

        A bar that spans the event is restated as a whole. Applying the same event twice changes nothing.
        """
        key = (event.effective_ms, event.event)
        if key in self.factors:
            return 0
        count = bisect_left(self.ts_open, event.effective_ms)
        if not count and isinstance(event, Dividend):
            return 0  # what it restates by follows from the last close before it
        since = math.prod(by.price for (later_ms, _), by in self.factors.items() if later_ms > event.effective_ms)
        self.restated_before_ms = max(self.restated_before_ms, event.effective_ms)
        by = self.factors[key] = factors(event, self.close[count - 1] if count else None, since)
        for index in range(count):
            self.open[index] /= by.price
            self.high[index] /= by.price
            self.low[index] /= by.price
            self.close[index] /= by.price
            self.volume[index] *= by.volume
            self.rendered[index] = None
        for name, column in self.columns.items():
            if self.units.get(name) in IN_PRICE:
                for index in range(count):
                    column[index] /= by.price
        if count and count == len(self):
            self.features = restated_features(self.features, by, self.units)
        forming = self.forming
        if forming is not None and forming.ts_open_ms < event.effective_ms:
            self._forming = restated_bar(forming, by, self.units)
            self._forming_close, self._forming_volume = self._forming.close, self._forming.volume
        return count

    def opens_at_or_after(self, at_ms: int) -> bool:
        """Return whether a bar, closed or forming, opens at `at_ms` or later."""
        forming = self.forming
        return bool(self.ts_open and self.ts_open[-1] >= at_ms) or (forming is not None and forming.ts_open_ms >= at_ms)

    def first_after(self, at_ms: int) -> int:
        """Return the index of the first bar that closes after `at_ms`, `len(self)` when none does."""
        return bisect_right(self.ts_close, at_ms)

    def jump_since(self, opened_after_ms: int, limit: float) -> int | None:
        """Return when the latest of the last `keep` bars closed whose close is more than `limit` times the one before, or the inverse.

        Bars that opened before `opened_after_ms` do not count. None when there is none.
        """
        first = max(0, len(self) - self.keep)
        for at in jumps(np.frombuffer(self.close)[first:], limit)[::-1]:
            index = first + int(at)
            if self.ts_open[index] >= opened_after_ms:
                return self.ts_close[index]
        return None

    def longest_range(self) -> float:
        """Return the largest true range, in price, of the last `keep` bars; 0 when fewer than two are held."""
        first = max(0, len(self) - self.keep)
        high, low, close = (np.frombuffer(column)[first:] for column in (self.high, self.low, self.close))
        if len(close) < 2:  # noqa: PLR2004 - a true range takes the close before
            return 0.0
        return float(np.max(np.maximum(high[1:], close[:-1]) - np.minimum(low[1:], close[:-1])))

    def median_range_bp(self, count: int) -> float | None:
        """Return the median range of the last `count` bars, in basis points of the close; None when no bar is held."""
        last = slice(max(0, len(self) - count), len(self))
        ranges = [(high - low) / close for high, low, close in zip(self.high[last], self.low[last], self.close[last], strict=True)]
        return 10_000 * median_low(ranges) if ranges else None

    def missing_in(self, count: int) -> int:
        """Return how many scheduled slots are missing inside the last `count` bars."""
        return sum(self.gap[max(1, len(self) - count) :])

    def longest_gap_in(self, count: int) -> int:
        """Return how many scheduled slots in a row are missing at most inside the last `count` bars."""
        return max(self.gap[max(1, len(self) - count) :], default=0)

    def on_scale_at(self, ts_open_ms: int) -> float:
        """Return by what the prices of a bar that opens then are divided to be on the scale of these bars."""
        if not self.factors:
            return 1.0
        return math.prod(by.price for (effective_ms, _), by in self.factors.items() if ts_open_ms < effective_ms)

    def _same(self, index: int, bar: MarketFeatures) -> bool:
        held = (self.close[index], self.open[index], self.high[index], self.low[index], self.volume[index])
        given = (bar.close, bar.open, bar.high, bar.low, bar.volume)
        if self.factors:
            return all(math.isclose(one, other, rel_tol=1e-9) for one, other in zip(held, given, strict=True))
        return held == given

    def _shows_other_features(self, index: int, bar: MarketFeatures) -> bool:
        """Return whether the row of the bar at `index` would show other features of `bar`."""
        for name, column in self.columns.items():
            held, given = column[index], bar.features.get(name, math.nan)
            if held != given and not (math.isnan(held) and math.isnan(given)):
                return True
        return False

    def _on_scale(self, bar: MarketFeatures) -> MarketFeatures:
        """Return `bar` on the scale of these bars: a record is on the scale that was in force at its bar's open."""
        for key in sorted(self.factors):
            if bar.ts_open_ms < key[0]:
                bar = restated_bar(bar, self.factors[key], self.units)
        return bar

    def _trim(self, count: int) -> None:
        packed: tuple[MutableSequence[Any], ...] = (
            self.ts_open,
            self.ts_close,
            self.open,
            self.high,
            self.low,
            self.close,
            self.volume,
            *self.columns.values(),
            self.revision,
            self.gap,
            self.sequence,
            self.rendered,
        )
        for column in packed:
            del column[:count]


def _recomputed(held: Mapping[str, float], given: Mapping[str, float]) -> bool:
    """Return whether features differ by more than a producer's restart makes them differ: the eighth digit."""
    return held.keys() != given.keys() or not all(math.isclose(held[name], given[name], rel_tol=1e-6, abs_tol=1e-12) for name in held)
