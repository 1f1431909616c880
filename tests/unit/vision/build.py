"""Bars, candles and a model without torch for the tests of this folder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from schemas import Candle, Detector, Instrument, InstrumentEvent, RunMode, interval_ms
from services.vision.render import ChartSpec, Floats, Pixels

MODE = RunMode.DEMO
SYMBOL = "BTC-USD.CBSE"
MINUTE = 60_000
START = 1_719_792_000_000
"""2024-07-01T00:00Z, a Monday."""


def walk(count: int, seed: int = 1, price: float = 100.0) -> Floats:
    """Return `count` bars of a random walk, shape (count, 5)."""
    generator = np.random.default_rng(seed)
    closes = price * np.exp(np.cumsum(generator.normal(0, 0.01, count)))
    opens = np.concatenate([[price], closes[:-1]])
    highs = np.maximum(opens, closes) * (1 + generator.uniform(0, 0.01, count))
    lows = np.minimum(opens, closes) * (1 - generator.uniform(0, 0.01, count))
    return np.stack([opens, highs, lows, closes, generator.uniform(1, 9, count)], axis=1)


def flat(count: int, price: float = 100.0, volume: float = 1.0) -> Floats:
    """Return `count` bars of one single price."""
    return np.tile(np.array([price, price, price, price, volume]), (count, 1))


def bars(rows: Sequence[tuple[float, float, float, float]]) -> Floats:
    """Return bars of open, high, low and close, with a volume of 1."""
    return np.array([[*row, 1.0] for row in rows])


def instrument(symbol: str = SYMBOL, *, calendar: str = "24x7", adjustment: str = "none") -> Instrument:
    return Instrument.model_validate(
        {
            "schema_version": 1,
            "run_mode": MODE,
            "symbol": symbol,
            "currency": "USD",
            "price_increment": "0.01",
            "calendar": calendar,
            "price_adjustment": adjustment,
        }
    )


def split(effective_ms: int, ratio: float, symbol: str = SYMBOL) -> InstrumentEvent:
    return InstrumentEvent(schema_version=1, run_mode=MODE, symbol=symbol, event="split", ratio=ratio, effective_ms=effective_ms)


def candle(
    slot: int,
    close: float = 100.0,
    *,
    symbol: str = SYMBOL,
    interval: str = "1m",
    revision: int = 0,
    closed: bool = True,
    volume: float = 1.0,
) -> Candle:
    """Return the bar of the `slot`-th interval from START, a hundredth of its price high."""
    open_ms = START + slot * interval_ms(interval)
    return Candle(
        schema_version=1,
        run_mode=MODE,
        symbol=symbol,
        interval=interval,
        ts_open_ms=open_ms,
        ts_close_ms=open_ms + interval_ms(interval),
        open=close,
        high=close * 1.005,
        low=close * 0.995,
        close=close,
        volume=volume,
        closed=closed,
        revision=revision,
    )


class MeanForecaster:
    """Says how white an image is: a model whose answer a test can compute."""

    def __init__(self, spec: ChartSpec | None = None) -> None:
        self.spec = ChartSpec() if spec is None else spec
        self.horizon_bars = 5
        self.detector = Detector(name="mean", version="1")
        self.batches: list[int] = []

    def p_up(self, images: Pixels) -> Floats:
        self.batches.append(len(images))
        return np.asarray(images.reshape(len(images), -1).mean(axis=1) / 255, dtype=np.float64)


def windows(count: int = 39, levels: Sequence[float] = (0.001, 1.0, 10_000.0)) -> st.SearchStrategy[Floats]:
    """Return a strategy of windows (count, 5) of sane bars, of any price level and with flat stretches."""
    prices = st.lists(st.integers(50, 150), min_size=4, max_size=4)
    row = st.tuples(prices, st.integers(0, 1_000)).map(lambda drawn: [drawn[0][0], max(drawn[0]), min(drawn[0]), drawn[0][1], drawn[1]])
    level = st.sampled_from(levels)
    return st.tuples(st.lists(row, min_size=count, max_size=count), level).map(
        lambda drawn: np.array(drawn[0], dtype=np.float64) * np.array([drawn[1]] * 4 + [1.0])
    )
