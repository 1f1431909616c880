"""Small DataFrames of minutes, and settings that suit them."""

from __future__ import annotations

from typing import Any

import pandas as pd

from aquiline import Bars
from tests.unit.backtest.build import walk

SMALL: dict[str, Any] = {
    "fusion.window_bars": 12,
    "fusion.epoch_slots": 4,
    "fusion.slow_window_bars": 4,
    "fusion.min_bars": 3,
    "fusion.intervals": ["1m", "5m"],
    "market.aggregate": {"1m": ["5m"]},
}
"""Short windows, so that epochs and slower bars come within 70 minutes."""


def minutes(bars: int = 70, **columns: Any) -> pd.DataFrame:
    """Return a random walk of two symbols as a DataFrame, with further columns."""
    candles = walk(bars)
    frame = pd.DataFrame({name: [getattr(one, name) for one in candles] for name in ("symbol", "open", "high", "low", "close", "volume")})
    times = pd.to_datetime([one.ts_open_ms for one in candles], unit="ms", utc=True)
    return frame.assign(time=times, **columns)


def small_bars(**columns: Any) -> Bars:
    """Return the bars of these minutes."""
    return Bars(minutes(**columns), interval="1m", price_adjustment="none", features=tuple(columns))
