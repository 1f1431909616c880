"""Measures of an equity curve: return, Sharpe, Sortino and Calmar ratios, turnover and exposure, each with its interval. Pure, seeded.

All are of days: the last equity of each day (UTC) in which a bar closed. A year has as many of them as the period shows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.scoring.report.model import Deflated, Measures
from services.scoring.report.net_positions import NetAccount
from services.scoring.report.report_input import Trials
from services.scoring.report.statistics import Floats, bootstrap_paths

LEAST_DAYS: Final = 20
"""Days below which nothing is said: a year's figure from two weeks is noise."""
_DAY_MS: Final = 86_400_000
_YEAR_DAYS: Final = 365.25
_NOTHING: Final = 1e-15
"""Below it a spread is the arithmetic's noise."""
_EULER: Final = 0.5772156649015329


@dataclass(frozen=True, slots=True)
class Daily:
    """Figures by day, each (days,)."""

    returns: Floats
    traded: Floats
    """Worth bought and sold, as a share of the equity of the evening before."""
    gross: Floats
    """Mean worth of all positions over the day's closes, as a share of the equity."""
    a_year: float
    """Days in a year."""


def daily(account: NetAccount, closes_ms: NDArray[np.int64], end_ms: int) -> Daily | None:
    """Return the account's days, of the sorted `closes_ms` of all bars in the period; None with fewer than `LEAST_DAYS`."""
    days, first_of = np.unique((closes_ms - 1) // _DAY_MS, return_index=True)  # a close at midnight ends the day before
    if len(days) < LEAST_DAYS:
        return None
    at_ms, equity, gross = np.array(account.at_ms), np.array(account.equity), np.array(account.gross)
    ends_ms = np.append(closes_ms[first_of[1:] - 1], closes_ms[-1])
    worth = np.concatenate([[1.0], equity[np.searchsorted(at_ms, ends_ms, side="right") - 1]])
    before = np.maximum(worth[:-1], 1e-12)
    grid = gross[np.searchsorted(at_ms, closes_ms, side="right") - 1]
    counts = np.diff(np.append(first_of, len(closes_ms)))
    traded = np.zeros(len(days))
    fills_ms = np.array([fill.ts_ms for fill in account.fills], dtype=np.int64)
    np.add.at(traded, np.minimum(np.searchsorted(ends_ms, fills_ms), len(days) - 1), [fill.worth for fill in account.fills])
    years = max(1.0, (end_ms - account.at_ms[0]) / _DAY_MS) / _YEAR_DAYS
    return Daily(worth[1:] / before - 1, traded / before, np.add.reduceat(grid, first_of) / counts, len(days) / years)


def measures(days: Daily, held_days: float, trials: Trials, seed: int) -> Measures:
    """Return the measures of `days`, whose positions were held for `held_days` on average, after `trials` earlier ones."""
    count = len(days.returns)
    block = max(1, min(count // 5, math.ceil(max(2 * held_days, math.cbrt(count)))))
    rows = np.stack([days.returns, days.traded, days.gross])

    def figures(drawn: Floats) -> Floats:
        returns, traded, gross = drawn
        return np.stack(
            [
                annual_return(returns, days.a_year),
                sharpe(returns, days.a_year),
                sortino(returns, days.a_year),
                calmar(returns, days.a_year),
                traded.mean(axis=-1) * days.a_year,
                gross.mean(axis=-1),
            ]
        )

    made, by_risk, by_losses, by_fall, turnover, exposure = bootstrap_paths(rows, figures, block=block, seed=seed)
    return Measures(
        days=count,
        days_a_year=days.a_year,
        block=block,
        annual_return=made,
        sharpe=by_risk,
        sortino=by_losses,
        calmar=by_fall,
        turnover=turnover,
        exposure=exposure,
        deflated=deflated(days.returns, trials, days.a_year),
    )


def annual_return(returns: Floats, a_year: float) -> Floats:
    """Return the compound annual return of (..., days)."""
    grown: Floats = np.prod(np.maximum(1 + returns, 0.0), axis=-1) ** (a_year / returns.shape[-1]) - 1
    return grown


def sharpe(returns: Floats, a_year: float) -> Floats:
    """Return the annual Sharpe ratio of (..., days), the riskless rate taken as 0; NaN where returns never change."""
    return _ratio(returns.mean(axis=-1), returns.std(axis=-1, ddof=1)) * math.sqrt(a_year)


def sortino(returns: Floats, a_year: float) -> Floats:
    """Return the annual Sortino ratio of (..., days): the mean over the root of the mean squared loss; NaN without a loss."""
    return _ratio(returns.mean(axis=-1), np.sqrt(np.mean(np.minimum(returns, 0.0) ** 2, axis=-1))) * math.sqrt(a_year)


def calmar(returns: Floats, a_year: float) -> Floats:
    """Return the annual return over the largest drawdown of (..., days); NaN without a drawdown."""
    worth = np.cumprod(np.maximum(1 + returns, 0.0), axis=-1)
    peaks = np.maximum(np.maximum.accumulate(worth, axis=-1), 1.0)
    return _ratio(annual_return(returns, a_year), -np.min(worth / peaks - 1, axis=-1))


def deflated(returns: Floats, trials: Trials, a_year: float) -> Deflated | None:
    """Return the deflated Sharpe ratio of daily `returns`; None where they never change.

    The variance among trials is theirs where it is larger than that of a Sharpe ratio of no skill, one over the days.
    """
    spread = returns.std(ddof=1)
    if spread <= _NOTHING:
        return None
    own = float(returns.mean() / spread)
    centred = (returns - returns.mean()) / returns.std()
    every = [*trials.daily_sharpes, own]
    variance = max(1 / len(returns), float(np.var(every, ddof=1)) if len(every) > 1 else 0.0)
    count = max(trials.count, len(trials.daily_sharpes)) + 1
    expected = expected_best(count, variance)
    probability = probabilistic_sharpe(own, expected, len(returns), float(np.mean(centred**3)), float(np.mean(centred**4)))
    return Deflated(probability, count, expected * math.sqrt(a_year), own)


def expected_best(trials: int, variance: float) -> float:
    """Return the Sharpe ratio that the best of `trials` without skill is expected to have, `variance` being that among them.

    Source: Bailey and Lopez de Prado (2014), The deflated Sharpe ratio, equation 1. One trial: 0.
    """
    if trials <= 1:
        return 0.0
    quantile = NormalDist().inv_cdf
    return math.sqrt(variance) * ((1 - _EULER) * quantile(1 - 1 / trials) + _EULER * quantile(1 - 1 / (trials * math.e)))


def probabilistic_sharpe(sharpe_ratio: float, benchmark: float, periods: int, skewness: float, kurtosis: float) -> float:
    """Return the probability that the true Sharpe ratio exceeds `benchmark`; ratios are of one period, `kurtosis` is 3 for a normal.

    Source: Bailey and Lopez de Prado (2012), The Sharpe ratio efficient frontier.
    """
    variance = 1 - skewness * sharpe_ratio + (kurtosis - 1) / 4 * sharpe_ratio**2
    return NormalDist().cdf((sharpe_ratio - benchmark) * math.sqrt(periods - 1) / math.sqrt(max(variance, 1e-12)))


def _ratio(above: Floats, below: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: Floats = np.where(below > _NOTHING, above / below, np.nan)
    return ratio
