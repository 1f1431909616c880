"""Restates bars for a split or dividend: prices and the features in price units are divided, volumes multiplied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from schemas import MarketFeatures
from services.core.restatement import Factors
from services.strategy.catalogue import Unit

IN_PRICE: Final = frozenset({"price", "distance"})
"""The units that a split or dividend rescales."""


def restated_features(features: Mapping[str, float], by: Factors, units: Mapping[str, Unit]) -> dict[str, float]:
    """Return features restated by these factors; one that `units` does not have is left out: unknown beats wrong."""
    return {name: value / by.price if units[name] in IN_PRICE else value for name, value in features.items() if name in units}


def restated_bar(bar: MarketFeatures, by: Factors, units: Mapping[str, Unit]) -> MarketFeatures:
    """Return `bar` restated by these factors, its features by their `units`."""
    return bar.model_copy(
        update={
            "open": bar.open / by.price,
            "high": bar.high / by.price,
            "low": bar.low / by.price,
            "close": bar.close / by.price,
            "volume": bar.volume * by.volume,
            "features": restated_features(bar.features, by, units),
        }
    )
