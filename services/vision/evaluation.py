"""Evaluates a forecaster and two baselines on the test part, with confidence intervals, as data for the model card."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.vision import logistic
from services.vision.dataset import Parts, Samples
from services.vision.forecast_quality import (
    Bin,
    Estimate,
    Metric,
    accuracy,
    auc,
    block_bootstrap,
    calibration,
    log_loss,
)
from services.vision.forecaster import Forecaster
from services.vision.render import Floats

BLOCK_DAYS: Final = 40
"""Longer than the 20 bars of a window and the 5 of its horizon together, so that dependent windows mostly share a block."""
DRAWS: Final = 1_000
_SEED: Final = 7
_METRICS: Final[tuple[tuple[str, Metric], ...]] = (("AUC", auc), ("accuracy", accuracy), ("log loss", log_loss))


@dataclass(frozen=True, slots=True)
class Judged:
    """One model's figures on the test part by metric, and its calibration."""

    name: str
    figures: dict[str, Estimate]
    bins: list[Bin]


@dataclass(frozen=True, slots=True)
class PartFacts:
    """One part of the data: its windows, its time span (closing times of the first bar seen and of the last label), its ups."""

    name: str
    windows: int
    from_ms: int
    until_ms: int
    share_up: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything that the model card reports."""

    parts: list[PartFacts]
    models: list[Judged]
    by_symbol: dict[str, tuple[int, float, float]]
    """Windows in the test part, AUC and accuracy of the forecaster, for each symbol."""
    p_up_range: tuple[float, float]
    """5th and 95th percentile of the forecaster's `p_up` on the test part."""
    logistic_penalty: float


def evaluate(parts: Parts, forecaster: Forecaster) -> Evaluation:
    """Return the figures of `forecaster`, of a logistic regression fitted here, and of the train part's share of ups.

    Raises ValueError when the forecaster was made for other images or another horizon than the samples.
    """
    test = parts.test
    if forecaster.spec != test.spec or forecaster.horizon_bars != test.horizon:
        raise ValueError(
            f"the forecaster sees {forecaster.spec.name} and looks {forecaster.horizon_bars} bars ahead; "
            f"the samples are {test.spec.name} and {test.horizon} bars: build them for the forecaster"
        )
    regression = logistic.fit(parts.train, parts.validation)
    network_p_up = _in_batches(forecaster, test)
    forecasts = {
        "chart network": network_p_up,
        "logistic regression": regression.p_up(logistic.features(test)),
        "majority": np.full(len(test), parts.train.up.mean()),
    }
    return Evaluation(
        parts=[
            _facts("train", parts.train),
            _facts("validation", parts.validation),
            _facts("test", parts.test),
        ],
        models=[_judged(name, p_up, test) for name, p_up in forecasts.items()],
        by_symbol={
            str(symbol): _figures_of(network_p_up[rows], test.up[rows])
            for symbol in np.unique(test.symbols)
            for rows in [test.symbols == symbol]
        },
        p_up_range=(float(np.quantile(network_p_up, 0.05)), float(np.quantile(network_p_up, 0.95))),
        logistic_penalty=regression.penalty,
    )


def _in_batches(forecaster: Forecaster, samples: Samples) -> Floats:
    images = samples.images()
    return np.concatenate([forecaster.p_up(images[first : first + 256]) for first in range(0, len(images), 256)])


def _judged(name: str, p_up: Floats, test: Samples) -> Judged:
    figures = {
        metric_name: block_bootstrap(metric, p_up, test.up, test.end_ms, block_days=BLOCK_DAYS, draws=DRAWS, seed=_SEED)
        for metric_name, metric in _METRICS
    }
    return Judged(name=name, figures=figures, bins=calibration(p_up, test.up))


def _facts(name: str, part: Samples) -> PartFacts:
    return PartFacts(
        name=name,
        windows=len(part),
        from_ms=int(part.start_ms.min()),
        until_ms=int(part.label_end_ms.max()),
        share_up=float(part.up.mean()),
    )


def _figures_of(p_up: Floats, up: NDArray[np.bool_]) -> tuple[int, float, float]:
    return len(up), auc(p_up, up), accuracy(p_up, up)
