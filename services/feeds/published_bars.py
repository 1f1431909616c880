"""Tracks which bars a topic already has, and decides what of a feed is to be published. Pure.

A restarted feed rebuilds this state from the topic: each closed bar is published once, in order, and a bar whose values change after its
close is published again with a higher revision.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from schemas import Candle

_KEPT_BARS: Final = 500
"""How many closed bars of a series can still be corrected."""


class BarStatus(StrEnum):
    """What a candle is, compared with the topic."""

    CLOSED = "closed"
    FORMING = "forming"
    REVISED = "revised"
    KNOWN = "known"
    """The topic has it with these values."""
    LATE = "late"
    """The topic has later bars but not this one; bars must be in order."""


class _Values(NamedTuple):
    prices: tuple[float, float, float, float, float]
    revision: int


@dataclass(slots=True)
class _Series:
    last_close_ms: int = 0
    last_open_ms: int = 0
    closed: OrderedDict[int, _Values] = field(default_factory=OrderedDict)
    forming: tuple[int, tuple[float, float, float, float, float]] | None = None


class PublishedBars:
    """The published bars of one topic, by symbol and interval."""

    def __init__(self) -> None:
        """Start empty."""
        self._series: dict[tuple[str, str], _Series] = {}

    def record(self, candle: Candle) -> None:
        """Record a candle of the topic; call in topic order."""
        self._note(candle, candle.revision)

    def classify(self, candle: Candle) -> tuple[BarStatus, Candle]:
        """Classify a candle and return it as it is to be published; unless KNOWN or LATE it then counts as published."""
        series = self._series.get((candle.symbol, candle.interval)) or _Series()
        values = _values(candle)
        if not candle.closed:
            if candle.ts_close_ms <= series.last_close_ms or series.forming == (candle.ts_open_ms, values):
                return BarStatus.KNOWN, candle
            self._note(candle, candle.revision)
            return BarStatus.FORMING, candle
        held = series.closed.get(candle.ts_open_ms)
        if held is not None and held.prices == values:
            return BarStatus.KNOWN, candle
        if held is not None:
            candle = candle.model_copy(update={"revision": max(candle.revision, held.revision + 1)})
            self._note(candle, candle.revision)
            return BarStatus.REVISED, candle
        if candle.ts_close_ms <= series.last_close_ms:
            return BarStatus.LATE, candle
        self._note(candle, candle.revision)
        return BarStatus.CLOSED, candle

    def last_open_ms(self, symbol: str, interval: str) -> int | None:
        """Return the open of a series' last closed bar, None without one."""
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
