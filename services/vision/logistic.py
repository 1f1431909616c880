"""The baseline that the chart network must beat: a logistic regression on the numbers that the image draws.

It uses the same window on the same scale, so that any difference in skill comes from the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.vision.dataset import Samples
from services.vision.forecast_quality import log_loss
from services.vision.render import HIGH, LOW, VOLUME, Floats, moving_average

PENALTIES: Final = (1.0, 10.0, 100.0, 1_000.0, 10_000.0)
_STEPS: Final = 50
_SMALL: Final = 1e-10


@dataclass(frozen=True, slots=True)
class Logistic:
    """A fitted regression: features are centred by `mean` (k,) and divided by `scale` (k,) before `weights` (k,)."""

    mean: Floats
    scale: Floats
    weights: Floats
    intercept: float
    penalty: float

    def p_up(self, features: Floats) -> Floats:
        """Return probabilities (n,) for features (n, k)."""
        return sigmoid((features - self.mean) / self.scale @ self.weights + self.intercept)


def features(samples: Samples) -> Floats:
    """Return (n, 6 * bars) numbers: open, high, low, close and moving average from 0 to 1 in the window, volume to its highest."""
    window = samples.bars[:, -samples.spec.bars :]
    average = moving_average(samples.spec, samples.bars)
    highest = np.fmax(window[:, :, HIGH].max(axis=1), average.max(axis=1))[:, None]
    lowest = np.fmin(window[:, :, LOW].min(axis=1), average.min(axis=1))[:, None]
    span = np.where(highest > lowest, highest - lowest, 1.0)
    volume = window[:, :, VOLUME]
    most = np.where(volume.max(axis=1) > 0, volume.max(axis=1), 1.0)[:, None]
    prices = (window[:, :, :VOLUME] - lowest[:, :, None]) / span[:, :, None]
    return np.concatenate([prices.reshape(len(window), -1), (average - lowest) / span, volume / most], axis=1)


def fit(train: Samples, validation: Samples, penalties: Sequence[float] = PENALTIES) -> Logistic:
    """Return the regression on `train` whose ridge penalty has the lowest log loss on `validation`."""
    learned, held_out = features(train), features(validation)
    fitted = [_fit_one(learned, train.up, penalty) for penalty in penalties]
    return min(fitted, key=lambda model: log_loss(model.p_up(held_out), validation.up))


def sigmoid(logits: Floats) -> Floats:
    """Return probabilities for logits, elementwise, without overflow however large these are."""
    odds: Floats = (1 + np.tanh(logits / 2)) / 2
    return odds


def calibrate(raw: Floats, up: NDArray[np.bool_]) -> tuple[float, float]:
    """Return `scale` and `shift` so that `sigmoid(scale * raw + shift)` has the lowest log loss; `scale` is never below 0.

    Source: Platt (1999). With a scale of 0 the logits carry no information and the result is the share of ups.
    """
    scale, shift = _newton(np.stack([raw, np.ones_like(raw)], axis=1), up, np.full(2, 1e-9))
    if scale < 0:
        share = float(up.mean())
        return 0.0, float(np.log(share / (1 - share)))
    return float(scale), float(shift)


def _fit_one(values: Floats, up: NDArray[np.bool_], penalty: float) -> Logistic:
    mean, spread = values.mean(axis=0), values.std(axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    design = np.concatenate([(values - mean) / scale, np.ones((len(values), 1))], axis=1)
    ridge = np.full(design.shape[1], penalty)
    ridge[-1] = 0.0  # the intercept carries no penalty
    weights = _newton(design, up, ridge)
    return Logistic(mean=mean, scale=scale, weights=weights[:-1], intercept=float(weights[-1]), penalty=penalty)


def _newton(design: Floats, up: NDArray[np.bool_], ridge: Floats) -> Floats:
    """Return the weights of the lowest penalized log loss; steps are halved until they lower it, or logits far off diverge."""

    def loss(weights: Floats) -> float:
        logits = design @ weights
        return float((np.logaddexp(0.0, logits) - up * logits).sum() + (ridge * weights**2).sum() / 2)

    weights = np.zeros(design.shape[1])
    lowest = loss(weights)
    for _ in range(_STEPS):
        p_up = sigmoid(design @ weights)
        gradient = design.T @ (p_up - up) + ridge * weights
        curvature = (design * (p_up * (1 - p_up))[:, None]).T @ design + np.diag(ridge)
        step = np.linalg.solve(curvature, gradient)
        while loss(weights - step) > lowest and np.abs(step).max() > _SMALL:
            step = step / 2
        weights = weights - step
        lowest = loss(weights)
        if np.abs(step).max() <= _SMALL:
            break
    return weights
