"""Batches of examples of similar length, in an order that seed and epoch alone decide. Needs numpy alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.training.examples import Example


class Batch(NamedTuple):
    """`ids` int32 (rows, tokens), padded on the right with the last id; `taught` and `decision` bool, the same shape; `lengths` (rows,).

    Padding follows everything that is taught, and a causal model does not look ahead: no attention mask is needed.
    """

    ids: NDArray[np.int32]
    taught: NDArray[np.bool_]
    decision: NDArray[np.bool_]
    lengths: NDArray[np.int64]


def batches(examples: Sequence[Example], *, tokens: int, epochs: int, seed: int) -> Iterator[Batch]:
    """Yield batches of at most `tokens` padded tokens, a single longer example alone, `epochs` times over all examples."""
    for epoch in range(epochs):
        generator = np.random.default_rng([seed, epoch])
        groups = grouped([one.ids.size for one in examples], tokens, generator)
        for group in groups:
            yield batch_of([examples[index] for index in group])


def grouped(lengths: Sequence[int], tokens: int, generator: np.random.Generator) -> list[list[int]]:
    """Return the indices in groups whose padded size is at most `tokens`, of neighbours in length, groups in random order."""
    jittered = np.argsort(np.array(lengths) * generator.uniform(0.97, 1.03, len(lengths)), kind="stable")
    groups: list[list[int]] = []
    longest = 0
    for index in jittered.tolist():
        longest = max(longest, lengths[index]) if groups else lengths[index]
        if groups and longest * (len(groups[-1]) + 1) <= tokens:
            groups[-1].append(index)
        else:
            groups.append([index])
            longest = lengths[index]
    return [groups[at] for at in generator.permutation(len(groups))]


def batch_of(examples: Sequence[Example]) -> Batch:
    """Return the examples as one padded batch."""
    lengths = np.array([one.ids.size for one in examples], dtype=np.int64)
    ids = np.stack([np.pad(one.ids, (0, int(lengths.max()) - one.ids.size), mode="edge") for one in examples])
    taught, decision = (
        np.stack([np.pad(mask, (0, int(lengths.max()) - mask.size)) for mask in masks])
        for masks in ([one.taught for one in examples], [one.decision for one in examples])
    )
    return Batch(ids, taught, decision, lengths)
