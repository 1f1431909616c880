"""Puts bars on the scale after a split: prices and the features in price units are divided, volumes multiplied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from schemas import MarketFeatures

_IN_PRICE: Final = frozenset({"atr", "ema_fast", "ema_slow", "macd", "macd_signal", "macd_hist"})
_WITHOUT_SCALE: Final = frozenset({"ret_1", "ret_5", "rsi", "bb_pos", "bb_width", "volume_z", "body", "upper_wick", "lower_wick"})


def scaled_features(features: Mapping[str, float], ratio: float) -> dict[str, float]:
    """Return features on the scale after a split of `ratio` new for each old; one of unknown scale is left out: unknown beats wrong."""
    scaled = {name: value for name, value in features.items() if name in _WITHOUT_SCALE}
    scaled.update({name: value / ratio for name, value in features.items() if name in _IN_PRICE})
    return scaled


def scaled_bar(bar: MarketFeatures, ratio: float) -> MarketFeatures:
    """Return `bar` on the scale after a split of `ratio` new units for each old one."""
    return bar.model_copy(
        update={
            "open": bar.open / ratio,
            "high": bar.high / ratio,
            "low": bar.low / ratio,
            "close": bar.close / ratio,
            "volume": bar.volume * ratio,
            "features": scaled_features(bar.features, ratio),
        }
    )
