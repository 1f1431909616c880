"""Eight sessions of five intraday symbols, as the producers of features would write them: three are history, a week is played.

Candles are a seeded random walk over the sessions of XNYS; what the market service makes of them comes from its own book.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np

from schemas import Candle, Instrument, InstrumentEvent, Message, RunMode, Topic, VisionFeatures, topic_name
from schemas.vision import Detector, Image, Pattern
from services.core.calendar import SessionCalendar
from services.market.book import Book

MINUTE: Final = 60_000
HOUR: Final = 60 * MINUTE
MODE: Final = RunMode.SHADOW
SYMBOLS: Final = ("AAPL.XNAS", "IBM.XNYS", "JPM.XNYS", "MSFT.XNAS", "XOM.XNYS")
CALENDAR: Final = SessionCalendar.of("XNYS")
PLAN: Final = {"1m": ["15m", "1h"]}


def ms(text: str) -> int:
    """Return milliseconds of an ISO time in UTC."""
    return round(dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC).timestamp() * 1000)


# Clocks in New York go forward between the two, so that sessions move by an hour of UTC.
HISTORY_DAYS: Final = tuple(dt.date(2025, 3, day) for day in range(5, 8))
PLAYED_DAYS: Final = tuple(dt.date(2025, 3, day) for day in range(10, 15))
OPENS: Final = tuple(session[0] for day in PLAYED_DAYS if (session := CALENDAR.session_on(day)) is not None)
SPLIT: Final = InstrumentEvent(schema_version=1, run_mode=MODE, symbol="MSFT.XNAS", event="split", ratio=2.0, effective_ms=OPENS[2])
OUTAGE: Final = (OPENS[3] + HOUR, OPENS[3] + 3 * HOUR)
"""Thursday: no candle comes for two hours; afterwards those of three symbols are delivered in one go, those of two never."""
LOST: Final = ("IBM.XNYS", "XOM.XNYS")


class Fed(NamedTuple):
    """One record to be appended: when, where, by which key, what."""

    at_ms: int
    topic: str
    key: bytes
    value: bytes


@dataclass
class Kinds:
    """How many there are of what makes the week interesting."""

    missing: int = 0
    revised: int = 0
    forming: int = 0
    without_vision: int = 0
    lost_in_outage: int = 0
    delivered_late: int = 0
    records: int = field(default=0)


def instrument(symbol: str) -> Instrument:
    """Return an instrument that trades on XNYS in cents."""
    return Instrument(
        schema_version=1,
        run_mode=MODE,
        symbol=symbol,
        currency="USD",
        price_increment="0.01",
        calendar="XNYS",
        price_adjustment="none",
    )


def week(seed: int, days: tuple[dt.date, ...], kinds: Kinds) -> list[Fed]:
    """Return the records of `days`, in the order of their append times; the same seed gives the same records."""
    fed: list[Fed] = []
    for number, symbol in enumerate(SYMBOLS):
        random = np.random.default_rng([seed, number, days[0].toordinal()])
        market = Book(instrument(symbol), [SPLIT] if SPLIT.symbol == symbol else [], PLAN)
        for offset, (at_ms, candle) in enumerate(_delivered(symbol, random, days, kinds)):
            for bar in market.take(candle, offset).out:
                fed.append(_fed(at_ms, Topic.MARKET_FEATURES, symbol, bar))
                if bar.interval == "1m" and bar.closed and random.random() > 0.02:
                    fed.append(_fed(at_ms + int(random.integers(20, 190)), Topic.VISION_FEATURES, symbol, _vision(bar.symbol, bar, random)))
                elif bar.interval == "1m" and bar.closed:
                    kinds.without_vision += 1
    fed.sort(key=lambda one: one.at_ms)
    kinds.records += len(fed)
    return fed


def _delivered(symbol: str, random: np.random.Generator, days: tuple[dt.date, ...], kinds: Kinds) -> Iterator[tuple[int, Candle]]:
    """Yield candles with the times at which they are appended, which never go back."""
    queue: list[tuple[int, Candle]] = []
    late = 0
    for candle in _candles(symbol, random, days, kinds):
        end_ms = candle.ts_close_ms if candle.closed else candle.ts_open_ms + MINUTE // 2
        at_ms = end_ms + int(random.integers(5, 60))
        if OUTAGE[0] <= end_ms < OUTAGE[1]:
            if symbol in LOST or not candle.closed:
                kinds.lost_in_outage += candle.closed
                continue
            kinds.delivered_late += 1
            at_ms = OUTAGE[1] + 5 * late
            late += 1
        queue.append((at_ms, candle))
        if candle.closed and random.random() < 0.002:
            queue.append((at_ms + int(random.integers(2, 40)) * MINUTE + 30_500, _corrected(candle, random)))
            kinds.revised += 1
    queue.sort(key=lambda one: one[0])
    yield from queue


def _candles(symbol: str, random: np.random.Generator, days: tuple[dt.date, ...], kinds: Kinds) -> Iterator[Candle]:
    close = float(random.uniform(80, 400))
    for day in days:
        session = CALENDAR.session_on(day)
        if session is None:
            continue
        close *= float(np.exp(random.normal(0, 0.01)))
        if symbol == SPLIT.symbol and session[0] == SPLIT.effective_ms:
            close /= SPLIT.ratio
        missing_until = 0
        for open_ms in range(session[0], session[1], MINUTE):
            first = close
            close = round(close * float(np.exp(random.normal(0, 0.0006))), 2)
            spread = abs(float(random.normal(0, 0.0004))) * close
            high, low = max(first, close) + spread, min(first, close) - spread
            if random.random() < 0.003:
                missing_until = open_ms + int(random.integers(1, 4)) * MINUTE
            if open_ms < missing_until:
                kinds.missing += 1
                continue
            volume = float(random.integers(1_000, 90_000))
            if random.random() < 0.05:
                kinds.forming += 1
                yield _candle(symbol, open_ms, (first, max(first, high), min(first, low), first, volume / 2), closed=False)
            yield _candle(symbol, open_ms, (first, high, low, close, volume), closed=True)


def _candle(symbol: str, open_ms: int, ohlcv: tuple[float, float, float, float, float], *, closed: bool) -> Candle:
    open_, high, low, close, volume = ohlcv
    return Candle(
        schema_version=1,
        run_mode=MODE,
        symbol=symbol,
        interval="1m",
        ts_open_ms=open_ms,
        ts_close_ms=open_ms + MINUTE,
        open=open_,
        high=high,
        low=low,
        close=close,
        volume=volume,
        closed=closed,
    )


def _corrected(candle: Candle, random: np.random.Generator) -> Candle:
    factor = 1 + float(random.uniform(-0.001, 0.001))
    prices = {name: getattr(candle, name) * factor for name in ("open", "high", "low", "close")}
    return candle.model_copy(update={**prices, "revision": 1})


def _vision(symbol: str, bar: Candle, random: np.random.Generator) -> VisionFeatures:
    first = int(random.integers(0, 10))
    return VisionFeatures(
        schema_version=1,
        run_mode=MODE,
        symbol=symbol,
        interval="1m",
        window_end_ms=bar.ts_close_ms,
        window_bars=20,
        image=Image(spec="jkx-20/1", width=60, height=64, hash="5d41402abc4b2a76b9719d911017c592"),
        detector=Detector(name="chart-cnn", version="1"),
        p_up=round(float(random.uniform(0.3, 0.7)), 3),
        patterns=[Pattern(label="double_bottom", score=0.8, first_bar=first, last_bar=first + 9)] if random.random() < 0.3 else [],
    )


def _fed(at_ms: int, topic: Topic, symbol: str, message: Message) -> Fed:
    return Fed(at_ms, topic_name(topic, MODE), symbol.encode(), message.encode())
