"""The baseline that the chart network must beat: a logistic regression on the numbers that the image draws.

It sees the same window on the same scale, so that a difference between the two is what the picture adds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.vision.dataset import Samples
from services.vision.render import HIGH, LOW, VOLUME, Floats, moving_average
from services.vision.statistics import log_loss

PENALTIES: Final = (1.0, 10.0, 100.0, 1_000.0, 10_000.0)
_STEPS: Final = 25


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
    """Return probabilities for logits, elementwise."""
    odds: Floats = 1 / (1 + np.exp(-logits))
    return odds


def _fit_one(values: Floats, up: NDArray[np.bool_], penalty: float) -> Logistic:
    """Newton's method; the intercept carries no penalty."""
    mean, spread = values.mean(axis=0), values.std(axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    design = np.concatenate([(values - mean) / scale, np.ones((len(values), 1))], axis=1)
    ridge = np.full(design.shape[1], penalty)
    ridge[-1] = 0.0
    weights = np.zeros(design.shape[1])
    for _ in range(_STEPS):
        p_up = sigmoid(design @ weights)
        gradient = design.T @ (p_up - up) + ridge * weights
        curvature = (design * (p_up * (1 - p_up))[:, None]).T @ design + np.diag(ridge)
        step = np.linalg.solve(curvature, gradient)
        weights -= step
        if np.abs(step).max() < 1e-10:  # noqa: PLR2004 - far below what a probability shows
            break
    return Logistic(mean=mean, scale=scale, weights=weights[:-1], intercept=float(weights[-1]), penalty=penalty)
