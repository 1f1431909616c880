"""Builds bars of a higher interval from closed bars of a lower one. Pure; no clock.

The calendar alone sets a higher bar's open and close, so every process builds the same bars.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from schemas import interval_ms
from services.core.calendar import SessionCalendar
from services.core.restatement import Factors


@dataclass(frozen=True, slots=True)
class Ohlcv:
    """A bar: times in ms, prices, volume and revision."""

    ts_open_ms: int
    ts_close_ms: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    revision: int


@dataclass(frozen=True, slots=True)
class HigherBar:
    """A higher bar built from the lower bars so far, with its scheduled times.

    Its `revision` is the sum of those of its lower bars: it grows with each correction and is the same in every process.
    """

    bar: Ohlcv
    closed: bool


class Aggregator:
    """Builds one higher interval of one symbol from the closed bars of a lower one."""

    def __init__(self, lower: str, higher: str, calendar: SessionCalendar) -> None:
        """Raise ValueError when `higher` is not a longer multiple of `lower`."""
        check_multiple(lower, higher)
        self.interval = higher
        self._calendar = calendar
        self._forming: Ohlcv | None = None

    def add(self, lower: Ohlcv) -> list[HigherBar]:
        """Add the next closed lower bar; return the higher bar that it ends, if any, then the one that it is part of, if any.

        Bars must come in order of time. A bar between sessions belongs to no higher bar, but ends one that it follows.
        """
        out = []
        bounds = self._calendar.bar_bounds(self.interval, lower.ts_open_ms)
        if self._forming is not None and lower.ts_open_ms >= self._forming.ts_close_ms:
            # The last lower bars are missing; this later one shows that the higher bar has ended.
            out.append(HigherBar(self._forming, closed=True))
            self._forming = None
        if bounds is None:
            return out
        grown = _widen(lower, bounds) if self._forming is None else _join(self._forming, lower)
        closed = lower.ts_close_ms >= bounds[1]
        self._forming = None if closed else grown
        out.append(HigherBar(grown, closed=closed))
        return out

    def bounds(self, ts_open_ms: int) -> tuple[int, int] | None:
        """Return open and close of the higher bar that a lower bar opening then belongs to, None between sessions."""
        return self._calendar.bar_bounds(self.interval, ts_open_ms)

    def revise(self, bounds: tuple[int, int], lower: Iterable[Ohlcv]) -> HigherBar | None:
        """Build the higher bar of `bounds` again from all its lower bars, in order, one of which was corrected; None without any."""
        forming = self._forming is not None and self._forming.ts_close_ms == bounds[1]
        bar = merge(lower, bounds)
        if forming:
            self._forming = bar
        return None if bar is None else HigherBar(bar, closed=not forming)


def check_multiple(lower: str, higher: str) -> None:
    """Raise ValueError when bars of `higher` cannot be built from bars of `lower`."""
    short, long = interval_ms(lower), interval_ms(higher)
    if long <= short or long % short:
        raise ValueError(f"{higher} bars cannot be built from {lower} bars; the higher interval must be a longer multiple of the lower")


def merge(lower: Iterable[Ohlcv], bounds: tuple[int, int]) -> Ohlcv | None:
    """Return the bar of `bounds` (open and close, ms) that `lower` bars in order make up, None when there are none."""
    bar: Ohlcv | None = None
    for part in lower:
        bar = _widen(part, bounds) if bar is None else _join(bar, part)
    return bar


def restated(bar: Ohlcv, by: Factors) -> Ohlcv:
    """Return `bar` with its prices divided and its volume multiplied by these factors."""
    return replace(
        bar,
        open=bar.open / by.price,
        high=bar.high / by.price,
        low=bar.low / by.price,
        close=bar.close / by.price,
        volume=bar.volume * by.volume,
    )


def _widen(bar: Ohlcv, bounds: tuple[int, int]) -> Ohlcv:
    return replace(bar, ts_open_ms=bounds[0], ts_close_ms=bounds[1])


def _join(bar: Ohlcv, part: Ohlcv) -> Ohlcv:
    return replace(
        bar,
        high=max(bar.high, part.high),
        low=min(bar.low, part.low),
        close=part.close,
        volume=bar.volume + part.volume,
        revision=bar.revision + part.revision,
    )
