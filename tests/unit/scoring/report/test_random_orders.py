"""Orders placed at their own moment by the vectorised rules end as the judge ended them, whatever they ask for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.habits import HABITS, WALKS, Habit, Walk, played
from services.scoring.report.prices import Prices
from services.scoring.report.random_orders import orders_of, play


@pytest.mark.parametrize("walk", WALKS.values(), ids=WALKS.keys())
@pytest.mark.parametrize("habit", HABITS.values(), ids=HABITS.keys())
@given(seed=st.integers(0, 10_000))
@settings(max_examples=3, deadline=None)
def test_an_order_placed_at_its_own_moment_ends_as_the_judge_ended_it(habit: Habit, walk: Walk, seed: int) -> None:
    given_ = played(habit, walk, seed, bars=160)
    found = orders_of(given_.outcomes, Prices(given_.bars, ()), 0, 2**60)
    assert found is not None
    orders, rings = found
    net = play(orders, rings, orders.stands[:, None], orders.side[:, None])[:, 0]
    assert len(orders) == len(given_.outcomes)
    for outcome, made in zip(orders.outcomes, net, strict=True):
        assert np.isnan(made) == (outcome.return_net is None), outcome
        if outcome.return_net is not None:
            assert made == pytest.approx(outcome.return_net, abs=2e-6), outcome
