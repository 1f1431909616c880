"""Numbers that several services estimate alike: ranks with ties, and the blocks that a bootstrap draws."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def midranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each value's rank from 1, ties sharing their mean rank; both have the shape (n,)."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return ranks


def block_starts(count: int, block: int, draws: int, source: np.random.Generator) -> NDArray[np.int64]:
    """Return (draws, blocks) starts of circular blocks of `block` consecutive of `count` observations, enough to cover them.

    Source: the circular block bootstrap of Politis and Romano (1992); a block that passes the end goes on at the beginning.
    """
    return source.integers(0, count, (draws, -(-count // block)))
