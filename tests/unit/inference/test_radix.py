"""The radix tree against the naive model: a list of sequences, compared one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.inference.engine import TokenIds
from services.inference.simulator.radix import Node, RadixTree

SEQUENCES = st.lists(st.lists(st.integers(0, 2), max_size=12), max_size=20)


def ids(tokens: list[int]) -> TokenIds:
    return np.array(tokens, dtype=np.int32)


def common(a: list[int], b: list[int]) -> int:
    length = 0
    while length < min(len(a), len(b)) and a[length] == b[length]:
        length += 1
    return length


@given(SEQUENCES, SEQUENCES)
def test_it_finds_the_longest_common_prefix_with_anything_inserted(held: list[list[int]], asked: list[list[int]]) -> None:
    tree = RadixTree()
    for sequence in held:
        tree.insert(ids(sequence))
    for sequence in asked:
        expected = max((common(sequence, other) for other in held), default=0)
        assert expected == tree.peek(ids(sequence))
        assert expected == tree.match(ids(sequence))[0]
    assert len({tuple(one[:n]) for one in held for n in range(1, len(one) + 1)}) == tree.tokens


@given(SEQUENCES, st.lists(st.integers(0, 19), max_size=5), st.integers(0, 60))
def test_eviction_spares_what_is_locked_and_keeps_the_sums_right(held: list[list[int]], locked: list[int], tokens: int) -> None:
    tree = RadixTree()
    locks: list[tuple[list[int], Node]] = []
    for at, sequence in enumerate(held):
        node = tree.insert(ids(sequence))
        if at in locked:
            tree.lock(node)
            locks.append((sequence, node))
    safe = {tuple(one[:n]) for one, _ in locks for n in range(1, len(one) + 1)}
    assert len(safe) == tree.locked_tokens
    before = tree.tokens
    gone = tree.evict(tokens)
    assert before - gone == tree.tokens
    assert gone >= min(tokens, before - len(safe))
    assert all(tree.peek(ids(sequence)) == len(sequence) for sequence, _ in locks)
    for _, node in locks:
        tree.unlock(node)
    assert tree.locked_tokens == 0
    tree.evict(tree.tokens)
    assert tree.tokens == 0


def test_eviction_takes_the_least_recently_used_first() -> None:
    tree = RadixTree()
    for sequence in ([1, 1], [2, 2], [3, 3]):
        tree.insert(ids(sequence))
    tree.match(ids([1, 1]))
    tree.evict(2)
    assert [tree.peek(ids([n, n])) for n in (1, 2, 3)] == [2, 0, 2]


def test_a_lock_that_nobody_holds_cannot_be_undone() -> None:
    tree = RadixTree()
    node = tree.insert(ids([1]))
    with pytest.raises(ValueError, match="holds no lock"):
        tree.unlock(node)
