"""Scores of the probabilities that signals carry: Brier score, log loss, and the temperature that fits them best. Pure.

The event is that the position which the signal opened completed with a gain after costs; its forecast is the probability of the action.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from schemas import Action
from schemas.signal import LabelAction

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

SMALLEST: Final = 1e-6
"""Probabilities have six digits: one of 0 or 1 counts as this much from it, so that no log loss is infinite."""
_TEMPERATURES: Final = np.geomspace(0.05, 20.0, 241)
_REFINED: Final = 61


class Score(NamedTuple):
    """How far one forecast was from what happened; 0 is best."""

    brier: float
    log_loss: float


def probability_of(action: Action, probabilities: Mapping[LabelAction, float]) -> float:
    """Return the forecast of a signal with this action."""
    return {str(name): value for name, value in probabilities.items()}.get(action.value, 0.0)


def score(probability: float, *, gained: bool) -> Score:
    """Return the scores of one forecast. Sources: Brier (1950); the logarithmic score of Good (1952), in natural logarithms."""
    kept = min(1 - SMALLEST, max(SMALLEST, probability))
    return Score((probability - gained) ** 2, -math.log(kept if gained else 1 - kept))


def brier(probability: Floats, gained: Bools) -> Floats:
    """Return the Brier scores of forecasts (n,)."""
    scores: Floats = (probability - gained) ** 2
    return scores


def log_loss(probability: Floats, gained: Bools) -> Floats:
    """Return the log losses of forecasts (..., n)."""
    kept = np.clip(probability, SMALLEST, 1 - SMALLEST)
    losses: Floats = -np.where(gained, np.log(kept), np.log1p(-kept))
    return losses


def at_temperature(probabilities: Floats, action: NDArray[np.intp], temperature: float) -> Floats:
    """Return the probability of each signal's action (n,), of `probabilities` (n, actions), had their logarithms been divided."""
    scaled = np.log(np.clip(probabilities, SMALLEST, None)) / temperature
    weights = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    shares: Floats = weights[np.arange(len(action)), action] / weights.sum(axis=1)
    return shares


def fitted_temperature(probabilities: Floats, action: NDArray[np.intp], gained: Bools) -> float:
    """Return the temperature from 0.05 to 20 with the least mean log loss. Source: Guo et al. (2017), On calibration, section 4.2."""

    def best_of(temperatures: Floats) -> int:
        return int(np.argmin([log_loss(at_temperature(probabilities, action, one), gained).mean() for one in temperatures.tolist()]))

    at = best_of(_TEMPERATURES)
    around = np.geomspace(_TEMPERATURES[max(0, at - 1)], _TEMPERATURES[min(len(_TEMPERATURES) - 1, at + 1)], _REFINED)
    return float(around[best_of(around)])


def of_actions(rows: Sequence[Mapping[LabelAction, float]], actions: Sequence[Action]) -> tuple[Floats, NDArray[np.intp]]:
    """Return probabilities (n, actions) and the column of each signal's own action (n,); an action that a row lacks has none."""
    names: tuple[LabelAction, ...] = get_args(LabelAction)
    columns = np.array([[row.get(name, 0.0) for name in names] for row in rows], dtype=np.float64).reshape(len(rows), len(names))
    return columns, np.array([names.index(action.value) for action in actions if action is not Action.ABSTAIN], dtype=np.intp)
