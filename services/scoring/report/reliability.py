"""Reliability of probabilities: forecasts in bins, each with how often it came true."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from schemas import SignalOutcome
from services.scoring.judge import COMPLETED
from services.scoring.probability_scores import Bools, Floats, brier, log_loss, probability_of
from services.scoring.report.model import Probabilities, ReliabilityBin
from services.scoring.report.statistics import block_length, bootstrap_mean, wilson
from services.scoring.report.trades import opened, trades_of

_BINS: Final = 10


def with_probabilities(outcomes: Sequence[SignalOutcome]) -> list[SignalOutcome]:
    """Return the completed positions whose signals carried probabilities, in order of time."""
    held = [one for one in outcomes if opened(one) and one.exit_reason in COMPLETED and one.probabilities is not None]
    return list(trades_of(held).outcomes)


def forecasts(outcomes: Sequence[SignalOutcome]) -> tuple[Floats, Bools]:
    """Return the probability of each signal's own action (n,), and whether its position gained (n,)."""
    probability = [probability_of(one.action, one.probabilities or {}) for one in outcomes]
    return np.array(probability, dtype=np.float64), np.array([(one.return_net or 0.0) > 0 for one in outcomes], dtype=np.bool_)


def probabilities(outcomes: Sequence[SignalOutcome], seed: int) -> Probabilities | None:
    """Return how good the probabilities were; `outcomes` are distinct by id. None where there are none."""
    held = with_probabilities(outcomes)
    probability, gained = forecasts(held)
    trades = trades_of(held)
    block = block_length(trades.entry_ms, trades.exit_ms)
    of_brier = bootstrap_mean(brier(probability, gained), block=block, seed=seed)
    of_log_loss = bootstrap_mean(log_loss(probability, gained), block=block, seed=seed)
    if of_brier is None or of_log_loss is None:
        return None
    share = float(gained.mean())
    return Probabilities(len(held), of_brier, of_log_loss, share * (1 - share), bins(probability, gained))


def bins(probability: Floats, gained: Bools) -> tuple[ReliabilityBin, ...]:
    """Return forecasts (n,) by tenths, each tenth with its lower edge; those that hold any."""
    place = np.minimum((probability * _BINS + 1e-9).astype(int), _BINS - 1)
    found = []
    for number in np.unique(place).tolist():
        within = place == number
        share = wilson(int(np.count_nonzero(gained[within])), int(np.count_nonzero(within)))
        if share is not None:
            name = f"{number / _BINS:.1f} to {(number + 1) / _BINS:.1f}"
            found.append(ReliabilityBin(name, int(np.count_nonzero(within)), float(probability[within].mean()), share))
    return tuple(found)
