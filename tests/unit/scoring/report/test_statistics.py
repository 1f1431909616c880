"""Intervals and correlations, against published values, brute force and what must hold whatever the numbers."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.resampling import midranks
from services.scoring.report.model import Estimate
from services.scoring.report.statistics import (
    _expanded,
    block_length,
    bootstrap_mean,
    lifetimes_met,
    peak_open,
    rank_correlation,
    uniqueness,
    wilson,
)

returns = st.lists(st.floats(-0.5, 0.5), min_size=5, max_size=40).map(np.array)
lives = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20)), min_size=1, max_size=30)
blocks = st.integers(1, 5)


def interval(estimate: Estimate | None) -> tuple[float, float, float]:
    assert estimate is not None
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.low, estimate.value, estimate.high


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_published_intervals(hits: int, of: int, low: float, high: float) -> None:
    """Newcombe (1998), Statistics in Medicine 17, table I, method 3."""
    found = interval(wilson(hits, of))
    assert (low, high) == (round(found[0], 4), round(found[2], 4))


def test_wilson_of_nothing_is_nothing() -> None:
    assert wilson(0, 0) is None


@given(st.integers(1, 5_000).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of))))
def test_wilson_holds_its_share_within_0_and_1_and_mirrors(case: tuple[int, int]) -> None:
    hits, of = case
    low, value, high = interval(wilson(hits, of))
    assert 0 <= low <= value <= high <= 1
    assert value == hits / of
    mirrored = interval(wilson(of - hits, of))
    assert mirrored == pytest.approx((1 - high, 1 - value, 1 - low))
    assert high - low > 0, "even a row of hits proves nothing for certain"
    closer = interval(wilson(hits * 4, of * 4))
    assert closer[2] - closer[0] < high - low


@given(lives)
def test_lifetimes_that_meet_are_counted_as_by_hand(spans: list[tuple[int, int]]) -> None:
    entry = np.array([start for start, _ in spans])
    leave = np.array([start + held for start, held in spans])
    ends = [max(end, start + 1) for start, end in zip(entry, leave, strict=True)]
    expected = [
        sum(one < end and start < other for one, other in zip(entry, ends, strict=True)) for start, end in zip(entry, ends, strict=True)
    ]
    assert expected == lifetimes_met(entry, leave).tolist()
    alone = [
        sum(1 / sum(one <= now < other for one, other in zip(entry, ends, strict=True)) for now in range(start, end)) / (end - start)
        for start, end in zip(entry, ends, strict=True)
    ]
    assert alone == pytest.approx(uniqueness(entry, leave).tolist())
    peak = max(sum(start <= now < end for start, end in zip(entry, ends, strict=True)) for now in range(75))
    assert peak == peak_open(entry, leave)


@given(returns, blocks, st.floats(-1, 1), st.floats(0.01, 10))
def test_a_bootstrap_moves_and_stretches_with_its_values(values: np.ndarray, block: int, shift: float, scale: float) -> None:
    block = min(block, len(values) // 5)
    once = interval(bootstrap_mean(values, block=block, seed=3, draws=50))
    moved = interval(bootstrap_mean(values * scale + shift, block=block, seed=3, draws=50))
    assert moved == pytest.approx(tuple(end * scale + shift for end in once), abs=1e-9)
    assert values.min() - 1e-9 <= once[0] <= once[2] <= values.max() + 1e-9


@given(returns, blocks, st.integers(0, 2**31))
def test_one_seed_gives_one_interval(values: np.ndarray, block: int, seed: int) -> None:
    first = bootstrap_mean(values, block=block, seed=seed, draws=50)
    assert first == bootstrap_mean(values, block=block, seed=seed, draws=50)


def test_a_bootstrap_of_independent_values_agrees_with_the_normal_approximation() -> None:
    values = np.random.default_rng(5).normal(0.01, 0.1, 2_000)
    low, value, high = interval(bootstrap_mean(values, block=1, seed=1))
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert (value - half, value + half) == pytest.approx((low, high), abs=half / 10)


def test_blocks_see_that_repeated_values_say_no_more_than_one() -> None:
    """A hundred values, each ten times over: as uncertain as the hundred, where single draws would claim a third of it."""
    single = np.random.default_rng(5).normal(0, 1, 100)
    repeated = np.repeat(single, 10)
    low, _, high = interval(bootstrap_mean(repeated, block=20, seed=1))
    once = interval(bootstrap_mean(single, block=1, seed=1))
    naive = interval(bootstrap_mean(repeated, block=1, seed=1))
    assert high - low == pytest.approx(once[2] - once[0], rel=0.2)
    assert naive[2] - naive[0] < (once[2] - once[0]) / 2.5


def test_fewer_than_five_blocks_get_a_mean_and_no_interval() -> None:
    assert Estimate(0.5, None, None) == bootstrap_mean(np.array([0.0, 1.0] * 4), block=2, seed=1)
    assert Estimate(0.5, None, None) == bootstrap_mean(np.array([0.0, 1.0]), block=1, seed=1)
    assert bootstrap_mean(np.array([]), block=1, seed=1) is None


@given(lives)
def test_blocks_are_single_without_overlap_and_never_more_than_a_fifth(spans: list[tuple[int, int]]) -> None:
    entry = np.array(sorted(start for start, _ in spans))
    leave = entry + np.array([held for _, held in spans])
    assert 1 <= block_length(entry, leave) <= max(1, len(spans) // 5)
    apart = np.arange(len(spans)) * 10
    assert block_length(apart, apart + 10) == 1


def test_rank_correlation_gives_the_textbook_value() -> None:
    """The example of Spearman's coefficient that is in most textbooks: IQ against hours of television, -29/165."""
    iq = np.array([106.0, 100, 86, 101, 99, 103, 97, 113, 112, 110])
    hours = np.array([7.0, 27, 2, 50, 28, 29, 20, 12, 6, 17])
    found = rank_correlation(iq, hours, block=1, seed=1)
    assert found is not None
    assert found.value == pytest.approx(-29 / 165)


def test_ties_share_their_mean_rank() -> None:
    assert midranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [3.5, 1.0, 3.5, 2.0]


@given(returns, st.integers(0, 2**31), blocks)
def test_rank_correlation_is_bounded_and_sees_order_alone(values: np.ndarray, seed: int, block: int) -> None:
    others = np.random.default_rng(seed).normal(size=len(values))
    found = rank_correlation(values, others, block=block, seed=1, draws=50)
    if found is None:
        assert len(set(values.tolist())) == 1
        return
    assert -1 <= found.value <= 1
    assert found == rank_correlation(midranks(values) * 3 + 1, np.exp(others), block=block, seed=1, draws=50)
    turned = rank_correlation(-midranks(values), others, block=block, seed=1, draws=50)
    assert turned is not None
    assert turned.value == pytest.approx(-found.value)


def test_what_never_changes_has_no_rank_correlation() -> None:
    assert rank_correlation(np.ones(9), np.arange(9.0), block=1, seed=1) is None
    assert rank_correlation(np.array([1.0]), np.array([2.0]), block=1, seed=1) is None


def test_a_block_holds_as_many_positions_as_one_meets() -> None:
    """A hundred positions, an hour apart and open for ten: nineteen meet in the middle, fewer at the ends, 18.1 on average."""
    entry = np.arange(100)
    assert block_length(entry, entry + 10) == 19
    assert block_length(np.arange(1_000), np.arange(1_000) + 2) == 10, "at least the third root"
    assert block_length(entry, entry + 60) == 20, "at most a fifth"


@pytest.mark.parametrize(("blocks", "student"), [(5, 2.776), (10, 2.262), (30, 2.045), (1_000, 1.962)])
def test_an_interval_of_few_blocks_is_as_wide_as_students_t_makes_it(blocks: int, student: float) -> None:
    low, high = _expanded(blocks)
    assert low == pytest.approx(NormalDist().cdf(-student * math.sqrt(blocks / (blocks - 1))), rel=0.03)
    assert low + high == pytest.approx(1)
