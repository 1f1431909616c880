"""What the tests publish: instruments, bars with features that make the fixed rules take sides, and vision features."""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass, field

from schemas import Detector, Image, Instrument, InstrumentEvent, MarketFeatures, RunMode, VisionFeatures

MINUTE_MS = 60_000
START_MS = 1_700_000_040_000 // MINUTE_MS * MINUTE_MS
SYMBOLS = tuple(f"COIN{number}-USD.CBSE" for number in range(8))
"""They reach all four partitions; a test holds it."""


def instrument(symbol: str, run_mode: RunMode = RunMode.DEMO, *, price_adjustment: str = "none") -> Instrument:
    """Return an instrument that trades at all hours."""
    return Instrument.model_validate(
        {
            "schema_version": 1,
            "run_mode": run_mode.value,
            "symbol": symbol,
            "currency": "USD",
            "price_increment": "0.01",
            "calendar": "24x7",
            "price_adjustment": price_adjustment,
        }
    )


def split(symbol: str, ratio: float, effective_ms: int) -> InstrumentEvent:
    """Return a split."""
    return InstrumentEvent(schema_version=1, run_mode=RunMode.DEMO, symbol=symbol, event="split", ratio=ratio, effective_ms=effective_ms)


def bar(symbol: str, number: int, run_mode: RunMode = RunMode.DEMO, *, closed: bool = True, revision: int = 0) -> MarketFeatures:
    """Return the `number`-th minute's bar of `symbol`: the same one whenever it is asked for."""
    draw = random.Random(zlib.crc32(f"{symbol}/{number}/{revision}".encode()))  # noqa: S311 - prices, not secrets
    middle = 100 + 5 * draw.random()
    lean = draw.uniform(-2, 2)
    open_, close = (round(middle + draw.uniform(-0.5, 0.5), 2) for _ in range(2))
    return MarketFeatures(
        schema_version=1,
        run_mode=run_mode,
        symbol=symbol,
        interval="1m",
        ts_open_ms=START_MS + number * MINUTE_MS,
        ts_close_ms=START_MS + (number + 1) * MINUTE_MS,
        open=open_,
        high=round(max(open_, close) + 0.3, 2),
        low=round(min(open_, close) - 0.3, 2),
        close=close,
        volume=float(draw.randint(1, 1000)),
        closed=closed,
        revision=revision,
        features={"atr": 1.0, "rsi": round(50 + 10 * lean, 2), "ema_fast": round(middle + lean, 2), "ema_slow": round(middle, 2)},
    )


def window(symbol: str, number: int, run_mode: RunMode = RunMode.DEMO) -> VisionFeatures:
    """Return the vision features of the window that ends with the `number`-th bar."""
    return VisionFeatures(
        schema_version=1,
        run_mode=run_mode,
        symbol=symbol,
        interval="1m",
        window_end_ms=START_MS + (number + 1) * MINUTE_MS,
        window_bars=20,
        image=Image(spec="jkx-20/1", width=60, height=64, hash="5d41402abc4b2a76b9719d911017c592"),
        detector=Detector(name="chart-cnn", version="1"),
        p_up=round(random.Random(number).random(), 3),  # noqa: S311 - likewise
        patterns=[],
    )


@dataclass
class Numbers:
    """The number of the next bar of each symbol."""

    next: dict[str, int] = field(default_factory=dict)

    def take(self, symbol: str) -> int:
        """Return the next bar's number."""
        number = self.next.get(symbol, 0)
        self.next[symbol] = number + 1
        return number
