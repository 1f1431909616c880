"""Restates bars for a split or dividend: prices and the features in price units are divided, volumes multiplied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from schemas import MarketFeatures
from services.core.restatement import Factors

_IN_PRICE: Final = frozenset({"atr", "ema_fast", "ema_slow", "macd", "macd_signal", "macd_hist"})
_WITHOUT_SCALE: Final = frozenset({"ret_1", "ret_5", "rsi", "bb_pos", "bb_width", "volume_z", "body", "upper_wick", "lower_wick"})


def restated_features(features: Mapping[str, float], by: Factors) -> dict[str, float]:
    """Return features restated by these factors; one of unknown scale is left out: unknown beats wrong."""
    scaled = {name: value for name, value in features.items() if name in _WITHOUT_SCALE}
    scaled.update({name: value / by.price for name, value in features.items() if name in _IN_PRICE})
    return scaled


def restated_bar(bar: MarketFeatures, by: Factors) -> MarketFeatures:
    """Return `bar` restated by these factors."""
    return bar.model_copy(
        update={
            "open": bar.open / by.price,
            "high": bar.high / by.price,
            "low": bar.low / by.price,
            "close": bar.close / by.price,
            "volume": bar.volume * by.volume,
            "features": restated_features(bar.features, by),
        }
    )
