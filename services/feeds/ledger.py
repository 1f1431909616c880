"""What a topic of candles holds of each series, and so what of a feed is news: nothing twice, nothing out of order. Pure.

A feed that was stopped, cut off or killed learns from the topic and goes on: closed bars come once, in order, and a bar whose values change
after it closed comes again with a higher revision.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from schemas import Candle

_KEPT_BARS: Final = 500
"""So many closed bars of a series can still be corrected."""


class News(StrEnum):
    """What a candle is to those who read the topic."""

    CLOSED = "closed"
    FORMING = "forming"
    REVISED = "revised"
    KNOWN = "known"
    """The topic holds it with these values."""
    LATE = "late"
    """The topic holds later bars and not this one, and bars must come in order."""


class _Values(NamedTuple):
    prices: tuple[float, float, float, float, float]
    revision: int


@dataclass(slots=True)
class _Series:
    last_close_ms: int = 0
    last_open_ms: int = 0
    closed: OrderedDict[int, _Values] = field(default_factory=OrderedDict)
    forming: tuple[int, tuple[float, float, float, float, float]] | None = None


class Ledger:
    """The series of one topic, by symbol and interval."""

    def __init__(self) -> None:
        """Know nothing of the topic."""
        self._series: dict[tuple[str, str], _Series] = {}

    def learn(self, candle: Candle) -> None:
        """Take in a candle that the topic holds, in the order in which it holds them."""
        self._note(candle, candle.revision)

    def news(self, candle: Candle) -> tuple[News, Candle]:
        """Return what a candle is, and as what it is to be published; it counts as published from now on where it is news."""
        series = self._series.get((candle.symbol, candle.interval)) or _Series()
        values = _values(candle)
        if not candle.closed:
            if candle.ts_close_ms <= series.last_close_ms or series.forming == (candle.ts_open_ms, values):
                return News.KNOWN, candle
            self._note(candle, candle.revision)
            return News.FORMING, candle
        held = series.closed.get(candle.ts_open_ms)
        if held is not None and held.prices == values:
            return News.KNOWN, candle
        if held is not None:
            candle = candle.model_copy(update={"revision": max(candle.revision, held.revision + 1)})
            self._note(candle, candle.revision)
            return News.REVISED, candle
        if candle.ts_close_ms <= series.last_close_ms:
            return News.LATE, candle
        self._note(candle, candle.revision)
        return News.CLOSED, candle

    def last_open_ms(self, symbol: str, interval: str) -> int | None:
        """Return the open of a series' last closed bar, None when the topic holds none."""
        series = self._series.get((symbol, interval))
        return series.last_open_ms if series is not None and series.last_close_ms else None

    def _note(self, candle: Candle, revision: int) -> None:
        series = self._series.setdefault((candle.symbol, candle.interval), _Series())
        if not candle.closed:
            series.forming = candle.ts_open_ms, _values(candle)
            return
        held = series.closed.get(candle.ts_open_ms)
        if held is None or revision >= held.revision:
            series.closed[candle.ts_open_ms] = _Values(_values(candle), revision)
        while len(series.closed) > _KEPT_BARS:
            series.closed.popitem(last=False)
        if candle.ts_close_ms > series.last_close_ms:
            series.last_close_ms, series.last_open_ms, series.forming = candle.ts_close_ms, candle.ts_open_ms, None


def _values(candle: Candle) -> tuple[float, float, float, float, float]:
    return candle.open, candle.high, candle.low, candle.close, candle.volume
