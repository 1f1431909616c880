"""The measures of an equity curve are those of empyrical and of the papers that they come from."""

from __future__ import annotations

import math

import empyrical
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.scoring.report.measures import (
    LEAST_DAYS,
    annual_return,
    calmar,
    daily,
    deflated,
    expected_best,
    measures,
    probabilistic_sharpe,
    sharpe,
    sortino,
)
from services.scoring.report.net_positions import Fill, NetAccount
from services.scoring.report.report_input import Trials
from services.scoring.report.statistics import bootstrap_paths

DAY = 86_400_000
YEAR = 252
SEED = 1


def account(equity: list[float], traded: float = 0.5) -> NetAccount:
    """Return an account with one close at each day's end, half of the capital in a position, and one fill a day."""
    at_ms = tuple(number * DAY for number in range(len(equity)))
    fills = tuple(Fill(one - DAY // 2, "A.XNAS", 1, 1.0, traded, traded, 0.0, "signal", opens=True) for one in at_ms[1:])
    return NetAccount(at_ms, tuple(equity), (0.0, *[0.5] * (len(equity) - 1)), fills, (), 0)


@given(st.lists(st.integers(-2_000, 2_000), min_size=2, max_size=60))
def test_the_ratios_are_those_of_empyrical(basis_points: list[int]) -> None:
    returns = np.array(basis_points) / 1e4
    for own, theirs in (
        (annual_return(returns, YEAR), empyrical.annual_return(returns, annualization=YEAR)),
        (sharpe(returns, YEAR), empyrical.sharpe_ratio(returns, annualization=YEAR)),
        (sortino(returns, YEAR), empyrical.sortino_ratio(returns, annualization=YEAR)),
        (calmar(returns, YEAR), empyrical.calmar_ratio(returns, annualization=YEAR)),
    ):
        if np.isfinite(own):
            assert own == pytest.approx(theirs, rel=1e-6, abs=1e-9)
        else:
            assert not np.isfinite(theirs) or abs(theirs) > 1e9, "where there is no spread, loss or fall, there is no ratio"


def test_the_deflated_sharpe_ratio_is_that_of_its_paper() -> None:
    # Bailey and Lopez de Prado (2014): 5 years of 250 days, 2.5 a year, a variance among trials of 1/2 a year, skewness -3, kurtosis 10.
    best = expected_best(100, 0.5 / 250)
    assert best == pytest.approx(0.1132, abs=5e-5)
    assert probabilistic_sharpe(2.5 / math.sqrt(250), best, 1250, -3, 10) == pytest.approx(0.9004, abs=5e-5)
    fewer = expected_best(46, 0.5 / 250)
    assert probabilistic_sharpe(2.5 / math.sqrt(250), fewer, 1250, -3, 10) == pytest.approx(0.9505, abs=5e-4)


def test_the_more_was_tried_the_less_a_sharpe_ratio_says() -> None:
    returns = np.random.default_rng(1).normal(0.001, 0.01, 500)
    said = [deflated(returns, Trials(count), YEAR) for count in (0, 1, 10, 100)]
    probabilities = [one.probability for one in said if one is not None]
    assert [one.trials for one in said if one is not None] == [1, 2, 11, 101]
    assert probabilities == sorted(probabilities, reverse=True)
    spread = deflated(returns, Trials(1, (1.0,)), YEAR)
    assert spread is not None
    assert spread.probability < probabilities[1], "trials that lie far apart make a better best by luck"
    assert deflated(np.zeros(30), Trials(), YEAR) is None


def test_days_are_counted_from_the_evening_before_and_fills_fall_on_theirs() -> None:
    equity = [1.0, *np.linspace(1.01, 1.3, 30).tolist()]
    days = daily(account(equity), np.arange(1, 31) * DAY, 30 * DAY)
    assert days is not None
    assert days.returns == pytest.approx(np.diff(equity) / equity[:-1])
    assert days.traded == pytest.approx(0.5 / np.array(equity[:-1]))
    assert days.gross == pytest.approx(np.full(30, 0.5))
    assert days.a_year == pytest.approx(365.25)


def test_a_day_without_a_bar_is_no_day() -> None:
    closes = np.array([number * DAY for number in range(1, 57) if number % 7 not in {5, 6}])
    days = daily(account([1.0] * 57), closes, 56 * DAY)
    assert days is not None
    assert len(days.returns) == 40
    assert days.a_year == pytest.approx(365.25 * 5 / 7)


def test_too_few_days_give_no_measures() -> None:
    assert daily(account([1.0] * LEAST_DAYS), np.arange(1, LEAST_DAYS) * DAY, LEAST_DAYS * DAY) is None


def test_every_measure_has_an_interval_around_it() -> None:
    returns = np.random.default_rng(3).normal(0.0005, 0.01, 400)
    days = daily(account([1.0, *np.cumprod(1 + returns).tolist()]), np.arange(1, 401) * DAY, 400 * DAY)
    assert days is not None
    found = measures(days, held_days=2.0, trials=Trials(), seed=SEED)
    assert found.days == 400
    assert found.block >= 400 ** (1 / 3)
    for one in (found.annual_return, found.sharpe, found.sortino, found.calmar, found.turnover):
        assert one is not None
        assert one.low is not None
        assert one.high is not None
        assert one.low < one.value < one.high


def test_the_bootstrap_of_series_covers_the_true_sharpe_ratio_about_as_often_as_it_says() -> None:
    true, covered = 0.05, 0
    for seed in range(100):
        returns = np.random.default_rng(seed).normal(true, 1.0, 250)
        (found,) = bootstrap_paths(returns[None, :], lambda rows: sharpe(rows[0], 1.0)[None], block=6, seed=seed, draws=300)
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= true <= found.high
    assert 88 <= covered <= 100
