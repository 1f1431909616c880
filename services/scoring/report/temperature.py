"""Fits a temperature to the probabilities of mode `flash`: on the earlier positions, shown on the later ones. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from schemas import SignalOutcome
from services.core.errors import ServiceError
from services.scoring.probability_scores import Bools, Floats, at_temperature, brier, fitted_temperature, log_loss, of_actions
from services.scoring.report.model import ReliabilityBin
from services.scoring.report.reliability import bins, with_probabilities

LEAST: Final = 100
"""Completed positions with probabilities, below which nothing is fitted."""
_FITTED_SHARE: Final = 0.7


@dataclass(frozen=True, slots=True)
class Scores:
    """How good probabilities were on the later positions."""

    brier: float
    log_loss: float
    bins: tuple[ReliabilityBin, ...]


@dataclass(frozen=True, slots=True)
class TemperatureFit:
    """A temperature, relative to the one that the probabilities were made with, and what it does to positions it was not fitted on."""

    temperature: float
    fitted: int
    shown: int
    before: Scores
    after: Scores

    @property
    def better(self) -> bool:
        """Return whether the later positions' log loss is lower with it."""
        return self.after.log_loss < self.before.log_loss


def fit_temperature(outcomes: Sequence[SignalOutcome]) -> TemperatureFit:
    """Return the temperature fitted on the first 70 % of the positions, in order of their opening, and its scores on the others.

    Those of other modes are left out: `fusion.flash_temperature` does not change their probabilities. Positions that were open when the
    first of the others opened are used for neither part. Raises ServiceError with fewer than 100.
    """
    held = [one for one in with_probabilities(outcomes) if one.mode == "flash"]
    if len(held) < LEAST:
        raise ServiceError(
            f"{len(held)} completed positions of mode `flash` carry probabilities, and a temperature takes at least {LEAST}; "
            'let mode `flash` decide for longer (`fusion.mode = "flash"`), with the scorer running'
        )
    first = int(len(held) * _FITTED_SHARE)
    from_ms = held[first].ts_entry_ms or 0
    earlier = [one for one in held[:first] if one.ts_exit_ms <= from_ms]
    if not earlier:
        raise ServiceError("every position of the first 70 % was still open when the others began, so nothing is left to fit on; add time")
    columns, action = of_actions([one.probabilities or {} for one in earlier], [one.action for one in earlier])
    temperature = fitted_temperature(columns, action, _gained(earlier))
    later = held[first:]
    columns, action = of_actions([one.probabilities or {} for one in later], [one.action for one in later])
    before, after = (_scores(at_temperature(columns, action, one), _gained(later)) for one in (1.0, temperature))
    return TemperatureFit(temperature, len(earlier), len(later), before, after)


def _gained(outcomes: Sequence[SignalOutcome]) -> Bools:
    return np.array([(one.return_net or 0.0) > 0 for one in outcomes], dtype=np.bool_)


def _scores(probability: Floats, gained: Bools) -> Scores:
    return Scores(float(brier(probability, gained).mean()), float(log_loss(probability, gained).mean()), bins(probability, gained))
