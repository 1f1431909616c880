"""Features of the user's own: a function `features(bars)` in a Python file that `market.features_file` names, called for every bar.

A function that fails or never returns leaves its features out and never stops the service: a fact that is missing is unknown, and
shown as that.
"""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import structlog
from numpy.typing import NDArray

from schemas.market import MAX_FEATURES
from services.core import metrics
from services.core.settings import SettingsError
from services.strategy.catalogue import FEATURE_UNITS
from services.strategy.user_code import UserCodeError, run_user_code

LOOKBACK_BARS: Final = 288
"""Bars that the function sees at most. A fixed number, so that a restarted service computes the same."""
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
_DIGITS: Final = 8
"""Significant ones, as in the other features."""
_FUNCTION: Final = "features"
_SHOWN: Final = 80
"""Characters of a wrong result that an error quotes."""

_log = structlog.get_logger()


class BarArrays(NamedTuple):
    """The last bars of one symbol and interval, oldest first: float64 arrays of shape (bars,), at most LOOKBACK_BARS long.

    The features are those of the last bar, which may still be forming.
    """

    open: NDArray[np.float64]
    high: NDArray[np.float64]
    low: NDArray[np.float64]
    close: NDArray[np.float64]
    volume: NDArray[np.float64]


FeatureFunction = Callable[[BarArrays], Mapping[str, float]]
"""Pure: the same bars give the same features. A feature that is not defined yet is left out."""


class FeaturesError(Exception):
    """A call of the user's function failed; the text says what it did."""


def load_features(file: Path) -> FeatureFunction:
    """Return the function `features` in `file`, made safe to call; raise SettingsError when there is none."""
    return checked(read_function(file), str(file))


def read_function(file: Path) -> FeatureFunction:
    """Return the function `features` in `file` as it is; raise SettingsError when there is none."""
    spec = importlib.util.spec_from_file_location("aquiline_own_features", file)
    if not file.is_file() or spec is None or spec.loader is None:
        raise SettingsError(f"market.features_file names {str(file)!r}, which is not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise SettingsError(f"market.features_file {str(file)!r} cannot be imported: {type(error).__name__}: {error}") from error
    function: FeatureFunction | None = getattr(module, _FUNCTION, None)
    if not callable(function):
        raise SettingsError(f"market.features_file {str(file)!r} has no function {_FUNCTION}(bars)")
    return function


def checked(function: FeatureFunction, name: str) -> FeatureFunction:
    """Return `function` as one that never raises: what it gets wrong is left out, logged and counted."""
    reported: set[str] = set()

    def features(bars: BarArrays) -> Mapping[str, float]:
        try:
            made = call(function, bars)
        except FeaturesError as error:
            metrics.OWN_FEATURES_FAILED.inc()
            problem = str(error)
            if problem not in reported and len(reported) < MAX_FEATURES:
                reported.add(problem)
                _log.warning("own_features_failed", file=name, error=problem)
            return {}
        return made

    return features


def call(function: FeatureFunction, bars: BarArrays) -> Mapping[str, float]:
    """Return what `function` makes of `bars`; raise FeaturesError when it raises, computes for too long or returns what it must not."""
    try:
        made = run_user_code(lambda: function(bars))
    except UserCodeError as error:
        raise FeaturesError(str(error)) from error
    try:
        return feature_values(dict(made))
    except (TypeError, ValueError) as error:
        raise FeaturesError(f"returned {str(made)[:_SHOWN]!r}, expected numbers by name: {error}") from error


def feature_values(made: Mapping[str, float]) -> dict[str, float]:
    """Return features as messages carry them; raise ValueError naming the first that none may carry."""
    if len(made) > MAX_FEATURES - len(FEATURE_UNITS):
        raise ValueError(f"{len(made)} features; at most {MAX_FEATURES - len(FEATURE_UNITS)} fit beside those of the service")
    for name in made:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f"the feature name {name!r} is not of the form mom_12: small letters, digits and underscores, at most 32")
        if name in FEATURE_UNITS:
            raise ValueError(f"the feature name {name!r} is taken by the service; choose another")
    return {name: float(f"{float(value):.{_DIGITS}g}") for name, value in made.items() if math.isfinite(value)}
