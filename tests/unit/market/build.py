"""Candles and instruments for the tests of this folder."""

from __future__ import annotations

import datetime as dt

from hypothesis import strategies as st

from schemas import Candle, Instrument, InstrumentEvent, RunMode, interval_ms
from services.market.aggregate import Ohlcv

MINUTE = 60_000
HOUR = 60 * MINUTE
MONDAY = 1_719_792_000_000
"""2024-07-01T00:00Z."""
SYMBOL = "BTC-USD.CBSE"
MODE = RunMode.DEMO


def ms(text: str) -> int:
    return round(dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC).timestamp() * 1_000)


def instrument(symbol: str = SYMBOL, *, calendar: str = "24x7", run_mode: RunMode = MODE) -> Instrument:
    return Instrument(
        schema_version=1,
        run_mode=run_mode,
        symbol=symbol,
        currency="USD",
        price_increment="0.01",
        calendar=calendar,
        price_adjustment="none",
    )


def split(effective_ms: int, ratio: float, symbol: str = SYMBOL) -> InstrumentEvent:
    return InstrumentEvent(schema_version=1, run_mode=MODE, symbol=symbol, event="split", ratio=ratio, effective_ms=effective_ms)


def candle(
    open_ms: int,
    close: float = 10.0,
    *,
    interval: str = "1m",
    symbol: str = SYMBOL,
    close_ms: int | None = None,
    closed: bool = True,
    revision: int = 0,
    volume: float = 1.0,
    run_mode: RunMode = MODE,
) -> Candle:
    return Candle(
        schema_version=1,
        run_mode=run_mode,
        symbol=symbol,
        interval=interval,
        ts_open_ms=open_ms,
        ts_close_ms=open_ms + interval_ms(interval) if close_ms is None else close_ms,
        open=close,
        high=close * 1.01,
        low=close * 0.99,
        close=close,
        volume=volume,
        closed=closed,
        revision=revision,
    )


@st.composite
def minutes(draw: st.DrawFn, *, start_ms: int = MONDAY, max_gap: int = 40) -> list[Ohlcv]:
    """Draw closed minutes in order, with gaps, some of them corrected before."""
    bars = []
    at = start_ms
    for gap in draw(st.lists(st.one_of(st.just(0), st.integers(0, max_gap)), min_size=1, max_size=80)):
        at += gap * MINUTE
        low, first, last, high = sorted(draw(st.lists(st.integers(1, 99), min_size=4, max_size=4)))
        bars.append(Ohlcv(at, at + MINUTE, first, high, low, last, draw(st.integers(0, 9)), draw(st.integers(0, 1))))
        at += MINUTE
    return bars
