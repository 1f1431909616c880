"""How sure a figure is: Wilson's interval, a block bootstrap for means that overlap in time, and rank correlation.

All are pure and seeded: the same numbers give the same interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.core.resampling import block_starts, midranks
from services.scoring.report.model import Estimate

Floats = NDArray[np.float64]
Times = NDArray[np.int64]

_Z: Final = 1.959963984540054
"""The standard normal's 97.5 % point."""
_LEAST: Final = 5
"""With fewer blocks a bootstrap draws the same few over and over, and its interval is far too narrow: none is given."""
_DRAWS: Final = 2_000


def wilson(hits: int, of: int) -> Estimate | None:
    """Return the share `hits / of` with its 95 % Wilson score interval; None when there is nothing to count.

    Source: Wilson (1927), as in Brown, Cai and DasGupta (2001): (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n).
    """
    if of == 0:
        return None
    share = hits / of
    centre = share + _Z**2 / (2 * of)
    half = _Z * math.sqrt(share * (1 - share) / of + _Z**2 / (4 * of**2))
    scale = 1 + _Z**2 / of
    # Rounding can push the ends a hair past the share where all or none hit.
    return Estimate(share, min(share, max(0.0, (centre - half) / scale)), max(share, min(1.0, (centre + half) / scale)))


def lifetimes_met(entry_ms: Times, exit_ms: Times) -> NDArray[np.int64]:
    """Return for each position how many positions' lifetimes it shares an instant with, itself included.

    A lifetime is [entry, exit), at least a millisecond, so that a position which ends as another begins does not meet it.
    """
    ends = np.maximum(exit_ms, entry_ms + 1)
    begun_before_its_end = np.searchsorted(np.sort(entry_ms), ends, side="left")
    ended_before_its_start = np.searchsorted(np.sort(ends), entry_ms, side="right")
    met: NDArray[np.int64] = begun_before_its_end - ended_before_its_start
    return met


def peak_open(entry_ms: Times, exit_ms: Times) -> int:
    """Return the largest number of positions open at one time."""
    if len(entry_ms) == 0:
        return 0
    ends = np.sort(np.maximum(exit_ms, entry_ms + 1))
    starts = np.sort(entry_ms)
    begun, ended = np.arange(1, len(starts) + 1), np.searchsorted(ends, starts, side="right")
    return int(np.max(begun - ended))


def uniqueness(entry_ms: Times, exit_ms: Times) -> Floats:
    """Return for each position the mean, over its lifetime, of one over the number of positions open then.

    The sum is the effective number of independent positions, if those open at one time are the same bet. Source: average
    uniqueness, Lopez de Prado, Advances in Financial Machine Learning (2018), chapter 4.
    """
    ends = np.maximum(exit_ms, entry_ms + 1)
    edges = np.unique(np.concatenate([entry_ms, ends]))
    begun = np.searchsorted(np.sort(entry_ms), edges[:-1], side="right")
    ended = np.searchsorted(np.sort(ends), edges[:-1], side="right")
    parts = np.diff(edges) / np.maximum(begun - ended, 1)  # nobody's lifetime is in a stretch with none open
    up_to = np.concatenate([[0.0], np.cumsum(parts)])
    spent: Floats = up_to[np.searchsorted(edges, ends)] - up_to[np.searchsorted(edges, entry_ms)]
    return spent / (ends - entry_ms)


def block_length(entry_ms: Times, exit_ms: Times) -> int:
    """Return how many consecutive positions, in order of entry, a bootstrap block has to hold.

    1 where positions do not overlap. Else as many as one meets on average, which span about twice a holding time, so that most of
    what depends on each other stays together; at least n^(1/3) (Hall, Horowitz and Jing, 1995) and at most a fifth of all.
    """
    positions = len(entry_ms)
    met = float(lifetimes_met(entry_ms, exit_ms).mean()) if positions else 1.0
    if met < 1 + 1e-9:
        return 1
    return max(1, min(positions // _LEAST, math.ceil(max(met, math.cbrt(positions)))))


def bootstrap_mean(values: Floats, *, block: int, seed: int, draws: int = _DRAWS) -> Estimate | None:
    """Return the mean of `values` (n,) with its 95 % percentile interval; None when there are none.

    `values` are in order of time; `block` consecutive ones are drawn together, 1 for independent ones. Fewer than five blocks
    get no interval. Sources: the circular block bootstrap of Politis and Romano (1992); the expanded percentile interval of
    Hesterberg (2015), since a plain one is too narrow where blocks are few.
    """
    if len(values) == 0:
        return None
    mean = float(values.mean())
    if len(values) < _LEAST * block:
        return Estimate(mean, None, None)
    means = _resampled(values[None, :], block, seed, draws)[0]
    low, high = np.quantile(means, _expanded(len(values) / block))
    return Estimate(mean, float(low), float(high))


def bootstrap_paths(
    rows: Floats, statistics: Callable[[Floats], Floats], *, block: int, seed: int, draws: int = _DRAWS
) -> list[Estimate | None]:
    """Return figures of series with their 95 % intervals: `statistics` takes (series, ..., n) and returns (figures, ...), NaN for none.

    `rows` (series, n) are in order of time and are drawn together, in circular blocks, to whole series of n: a figure may depend on
    the order, as a drawdown does. A figure that half of the draws do not have gets no interval, nor do fewer than five blocks.
    """
    values, count = statistics(rows), rows.shape[1]
    if count < _LEAST * block:
        return [Estimate(float(value), None, None) if np.isfinite(value) else None for value in values]
    generator, found = np.random.default_rng(seed), []
    step = max(1, 500_000 // count)  # draws at once: bounds memory
    for first in range(0, draws, step):
        starts = block_starts(count, block, min(draws, first + step) - first, generator)
        index = (starts[:, :, None] + np.arange(block)).reshape(len(starts), -1)[:, :count] % count
        found.append(statistics(rows[:, index]))
    drawn, quantiles = np.concatenate(found, axis=1), _expanded(count / block)
    estimates: list[Estimate | None] = []
    for value, every in zip(values, drawn, strict=True):
        known = every[np.isfinite(every)]
        if not np.isfinite(value):
            estimates.append(None)
        elif len(known) < draws / 2:
            estimates.append(Estimate(float(value), None, None))
        else:
            low, high = np.quantile(known, quantiles)
            estimates.append(Estimate(float(value), float(low), float(high)))
    return estimates


def rank_correlation(x: Floats, y: Floats, *, block: int, seed: int, draws: int = _DRAWS) -> Estimate | None:
    """Return Spearman's rank correlation of pairs in order of time, with a 95 % bootstrap interval; None where one never changes.

    The interval resamples blocks of pairs of their midranks in the whole sample.
    """
    if len(x) < 2:  # noqa: PLR2004 - a correlation takes two
        return None
    a, b = _centred_ranks(x), _centred_ranks(y)
    if not a.any() or not b.any():
        return None
    value = float((a * b).sum() / math.sqrt((a * a).sum() * (b * b).sum()))
    value = max(-1.0, min(1.0, value))
    if len(x) < _LEAST * block:
        return Estimate(value, None, None)
    mean_a, mean_b, mean_aa, mean_bb, mean_ab = _resampled(np.stack([a, b, a * a, b * b, a * b]), block, seed, draws)
    spread = (mean_aa - mean_a**2) * (mean_bb - mean_b**2)
    known = spread > 1e-12 * (a * a).mean() * (b * b).mean()  # a draw of one value over and over has no correlation
    drawn = np.clip((mean_ab - mean_a * mean_b)[known] / np.sqrt(spread[known]), -1, 1)
    if len(drawn) < draws / 2:
        return Estimate(value, None, None)
    low, high = np.quantile(drawn, _expanded(len(x) / block))
    return Estimate(value, float(low), float(high))


def _expanded(blocks: float) -> tuple[float, float]:
    """Return the quantiles that a 95 % interval of that many blocks takes: the normal's at sqrt(k / (k - 1)) times Student's t."""
    freedom = blocks - 1
    z = _Z
    # Student's 97.5 % point: Abramowitz and Stegun 26.7.5, off by less than 0.4 % from four degrees of freedom on.
    t = (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )
    tail = math.erfc(t * math.sqrt(blocks / freedom) / math.sqrt(2)) / 2
    return tail, 1 - tail


def _centred_ranks(values: Floats) -> Floats:
    return midranks(values) - (len(values) + 1) / 2


def _resampled(rows: Floats, block: int, seed: int, draws: int) -> Floats:
    """Return (rows, draws) means over resampled circular blocks; each draw takes the same blocks of every row."""
    count = rows.shape[1]
    sums = np.cumsum(np.concatenate([np.zeros((len(rows), 1)), rows, rows[:, :block]], axis=1), axis=1)
    block_sums = sums[:, block : block + count] - sums[:, :count]
    blocks = -(-count // block)
    generator = np.random.default_rng(seed)
    means = np.empty((len(rows), draws))
    step = max(1, 2_000_000 // blocks)  # draws at once: bounds memory with very many positions
    for first in range(0, draws, step):
        last = min(draws, first + step)
        starts = block_starts(count, block, last - first, generator)
        for row, of_row in enumerate(block_sums):
            means[row, first:last] = of_row[starts].sum(axis=1) / (blocks * block)
    return means
