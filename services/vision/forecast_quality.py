"""How good a forecast is, and how sure that figure is: AUC, accuracy, log loss, and a block bootstrap over time.

Windows overlap and symbols move together, so that single windows say less than their number suggests: the bootstrap draws whole
blocks of days, with every symbol's windows of those days.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.core.resampling import block_starts, midranks

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Metric = Callable[[Floats, Bools], float]


def auc(p_up: Floats, up: Bools) -> float:
    """Return the share of pairs of an `up` and a not-`up` window in which the former has the higher `p_up`, ties counting half.

    Both have the shape (n,). Returns 0.5 when there is no such pair. Source: the Mann-Whitney U statistic with midranks.
    """
    positives = int(up.sum())
    negatives = len(up) - positives
    if positives == 0 or negatives == 0:
        return 0.5
    return float((midranks(p_up)[up].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def accuracy(p_up: Floats, up: Bools) -> float:
    """Return the share of windows whose `p_up` is on the right side of a half (exactly a half counts as up)."""
    return float(((p_up >= 0.5) == up).mean())  # noqa: PLR2004 - a coin's


def log_loss(p_up: Floats, up: Bools) -> float:
    """Return the mean negative log-likelihood in nats; a coin's is 0.693."""
    clipped = np.clip(p_up, 1e-6, 1 - 1e-6)
    return float(-np.where(up, np.log(clipped), np.log1p(-clipped)).mean())


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with the ends of its 95 % confidence interval."""

    value: float
    low: float
    high: float


def block_bootstrap(
    metric: Metric, p_up: Floats, up: Bools, end_ms: NDArray[np.int64], *, block_days: int, draws: int, seed: int
) -> Estimate:
    """Return `metric` with its 95 % percentile interval over `draws` resamples of blocks of `block_days` consecutive days.

    `end_ms` (n,) gives each window's day. Source: the circular block bootstrap of Politis and Romano (1992), over days.
    """
    days, day_of = np.unique(end_ms, return_inverse=True)
    by_day = np.split(np.argsort(day_of, kind="stable"), np.cumsum(np.bincount(day_of))[:-1])
    values = np.empty(draws)
    for draw, starts in enumerate(block_starts(len(days), block_days, draws, np.random.default_rng(seed))):
        drawn = ((starts[:, None] + np.arange(block_days)[None, :]) % len(days)).ravel()[: len(days)]
        rows = np.concatenate([by_day[day] for day in drawn])
        values[draw] = metric(p_up[rows], up[rows])
    low, high = np.quantile(values, [0.025, 0.975])
    return Estimate(value=metric(p_up, up), low=float(low), high=float(high))


@dataclass(frozen=True, slots=True)
class Bin:
    """Windows of like `p_up`: their number, their mean `p_up`, and the share of them that went up."""

    count: int
    p_up: float
    up: float


def calibration(p_up: Floats, up: Bools, bins: int = 10) -> list[Bin]:
    """Return `bins` bins of equal counts, from the lowest `p_up` to the highest."""
    order = np.argsort(p_up, kind="stable")
    return [
        Bin(count=len(part), p_up=float(p_up[part].mean()), up=float(up[part].mean())) for part in np.array_split(order, bins) if len(part)
    ]
