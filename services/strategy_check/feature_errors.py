"""What is wrong with the features of a strategy's own, called on made-up bars from the first one on to the longest look-back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from services.market.own_features import LOOKBACK_BARS, BarArrays, FeaturesError, call, read_function

_LENGTHS: Final = (LOOKBACK_BARS, *range(1, LOOKBACK_BARS, 11))
"""The longest first: what fails there fails for nearly every bar."""


def feature_errors(file: Path) -> Iterator[str]:
    """Yield the first mistake of the function in `file`; raise SettingsError when there is none to call."""
    function = read_function(file)
    for length in _LENGTHS:
        try:
            call(function, _bars(length))
        except FeaturesError as error:
            seen = "1 bar" if length == 1 else f"{length} bars"
            yield f"{file}: features(bars) {error} (with {seen}); return numbers by name, and leave one out while it is not defined"
            return


def _bars(length: int) -> BarArrays:
    close = 100 + np.sin(np.arange(length) / 5.0)
    return BarArrays(close - 0.1, close + 0.2, close - 0.3, close, 1_000 + 100 * np.cos(np.arange(length)))
