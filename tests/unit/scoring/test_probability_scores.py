"""Brier score, log loss and temperature of probabilities, against hand computation and planted temperatures."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import Action
from schemas.signal import LabelAction
from services.scoring.probability_scores import SMALLEST, at_temperature, brier, fitted_temperature, log_loss, of_actions, score
from tests.unit.scoring.build import bar, bars, cancel, feed, judge, only, signal

FLASH: dict[LabelAction, float] = {"buy": 0.7, "sell": 0.1, "exit": 0.05, "hold": 0.15}


def test_the_scores_are_those_computed_by_hand() -> None:
    assert tuple(score(0.7, gained=True)) == pytest.approx((0.09, 0.356675), abs=1e-6)
    assert tuple(score(0.7, gained=False)) == pytest.approx((0.49, 1.203973), abs=1e-6)
    assert score(0.0, gained=True).log_loss == pytest.approx(-math.log(SMALLEST)), "never infinite"


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=30))
def test_scores_of_many_are_those_of_each(drawn: list[tuple[float, bool]]) -> None:
    probability, gained = np.array([one for one, _ in drawn]), np.array([one for _, one in drawn])
    each = [score(one, gained=happened) for one, happened in drawn]
    assert brier(probability, gained).tolist() == pytest.approx([one.brier for one in each])
    assert log_loss(probability, gained).tolist() == pytest.approx([one.log_loss for one in each])


@given(st.floats(0.2, 5))
def test_a_temperature_divides_the_logarithms_and_keeps_the_order(temperature: float) -> None:
    columns, action = of_actions([FLASH], [Action.BUY])
    weights = {name: value ** (1 / temperature) for name, value in FLASH.items()}
    assert at_temperature(columns, action, temperature)[0] == pytest.approx(weights["buy"] / sum(weights.values()))


@pytest.mark.parametrize("planted", [0.5, 1.0, 2.5])
def test_a_planted_temperature_is_found(planted: float) -> None:
    generator = np.random.default_rng(7)
    true = generator.dirichlet([1.0, 1.0, 1.0, 1.0], 20_000)
    action = true.argmax(axis=1)
    gained = generator.random(len(true)) < true.max(axis=1)
    said = true**planted / (true**planted).sum(axis=1, keepdims=True)
    assert fitted_temperature(said, action, gained) == pytest.approx(planted, rel=0.1)


def test_a_completed_position_of_a_signal_with_probabilities_is_scored() -> None:
    asked = signal(mode="flash", probabilities=FLASH)
    gains = only(feed(judge(), [asked, *bars("100 102.5 99.9 102")]))
    assert (gains.probabilities, gains.brier, gains.log_loss) == (FLASH, 0.09, 0.35667494)
    loses = only(feed(judge(), [asked, *bars("100 100.2 98.9 99")]))
    assert (loses.brier, loses.log_loss) == (0.49, 1.2039728)


def test_what_was_not_opened_or_ended_early_or_says_no_probability_has_no_score() -> None:
    asked = signal(mode="flash", probabilities=FLASH)
    not_opened = only(feed(judge(), [asked, *bars("101 101 101 101")]))
    assert not_opened.probabilities == FLASH
    early = only(feed(judge(), [asked, bar(0, "100 100 100 100"), cancel(asked, 0.5), bar(1, "100 100 100 100")]))
    plain = only(feed(judge(), [signal(), *bars("100 102.5 99.9 102")]))
    assert plain.probabilities is None
    for one in (not_opened, early, plain):
        assert (one.brier, one.log_loss) == (None, None)


def test_a_judge_that_was_stored_knows_the_probabilities() -> None:
    asked, one = signal(mode="flash", probabilities=FLASH), judge()
    feed(one, [asked])
    again = judge()
    again.load(one.dump())
    assert only(feed(again, bars("100 102.5 99.9 102"))).brier == 0.09
