"""What a strategy can name without describing it: the columns of a bar's row, and the features of `services/market` with their units."""

from __future__ import annotations

from typing import Final, Literal

Unit = Literal["price", "distance", "return", "number"]
"""`price` a level in the instrument's currency, `distance` a difference of prices, `return` a share shown in basis points, or a `number`.

A split divides prices and distances; it leaves returns and numbers as they are.
"""

BarColumn = Literal["open", "high", "low", "close", "volume", "rsi"]

FEATURE_UNITS: Final[dict[str, Unit]] = {
    "atr": "distance",
    "ema_fast": "price",
    "ema_slow": "price",
    "macd": "distance",
    "macd_signal": "distance",
    "macd_hist": "distance",
    "ret_1": "return",
    "ret_5": "return",
    "rsi": "number",
    "bb_pos": "number",
    "bb_width": "number",
    "volume_z": "number",
    "body": "number",
    "upper_wick": "number",
    "lower_wick": "number",
}
"""The features that `services/market` publishes; `services/market/indicators.py` defines each."""

BOOK_FACTS: Final[dict[str, Unit]] = {"close": "price", "day_change": "return"}
"""Facts that the worker computes from the bars: the last close, and its change since the last close of the day before."""
