"""What a report says: plain data, every number finite or None.

A return is a fraction of a position's entry price (0.01 is one per cent); times are milliseconds since 1970.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from schemas import ExitReason


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with the ends of its 95 % confidence interval, which are None where there is too little to give one."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Counts:
    """Where the signals went. `signals` is `completed`, `unscored`, `unusable` and all in `closed_early` and `never_opened`."""

    signals: int
    completed_by: Mapping[ExitReason, int]
    """Opened, and ended at target, stop or horizon."""
    closed_early: Mapping[ExitReason, int]
    """Opened, and ended by a cancel or a newer signal."""
    never_opened: Mapping[ExitReason, int]
    unscored: int
    """Held over a price jump that no split explains: nobody knows what they made."""
    unusable: int
    """Opened by what they say, but without price, time or return."""
    duplicates: int
    """Further bodies of a `signal_id`, which are not among `signals`."""

    @property
    def completed(self) -> int:
        """Return how many positions ended at target, stop or horizon."""
        return sum(self.completed_by.values())

    @property
    def opened(self) -> int:
        """Return how many positions were opened."""
        return self.completed + sum(self.closed_early.values())


@dataclass(frozen=True, slots=True)
class Overlap:
    """How many positions were open together."""

    peak: int
    """At most, at any time."""
    independent: int
    """The effective number of independent positions: the sum of their average uniqueness."""
    block: int
    """Length, in positions, of the blocks that the bootstrap draws."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A share of the starting capital won or lost, over time or over positions, with its largest fall from a peak."""

    at: tuple[int, ...]
    """Milliseconds, or numbers of positions; not falling."""
    values: tuple[float, ...]
    drawdown: tuple[float, ...]
    """Below the peak so far, as a fraction of the peak's capital: 0 or less."""

    @property
    def worst(self) -> float:
        """Return the largest drawdown, 0 or less."""
        return min(self.drawdown, default=0.0)

    @property
    def final(self) -> float:
        """Return the last value."""
        return self.values[-1] if self.values else 0.0


@dataclass(frozen=True, slots=True)
class Row:
    """A part of the positions: how many were opened and completed, and how they did."""

    name: str
    signals: int
    opened: int
    completed: int
    hit_rate: Estimate | None
    """Of the completed ones."""
    mean_return: Estimate | None
    """Of the opened ones."""


@dataclass(frozen=True, slots=True)
class Breakdown:
    """The positions by one property."""

    by: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Calibration:
    """Whether more conviction went with better outcomes."""

    buckets: tuple[Row, ...]
    """From the least conviction to the most."""
    rank_correlation: Estimate | None
    """Spearman's, between conviction and net return, over opened positions; None where one of them never changes."""
    sentence: str


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Positions whose probability lies in one bin: what was forecast, and how often it happened."""

    name: str
    count: int
    forecast: float
    """Mean probability."""
    gained: Estimate
    """Share that completed with a gain, with Wilson's interval."""


@dataclass(frozen=True, slots=True)
class Probabilities:
    """How good the signals' probabilities were, over completed positions. The event is a gain after costs."""

    count: int
    brier: Estimate
    log_loss: Estimate
    base_brier: float
    """Brier score of always saying the share that gained: what knows nothing of the single signal."""
    bins: tuple[ReliabilityBin, ...]
    """By tenths of probability, those with positions."""


@dataclass(frozen=True, slots=True)
class Hold:
    """What buying every symbol at the period's start and holding it to its end would have made."""

    curve: Curve
    by_symbol: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class RandomTraders:
    """Mean net returns of random traders, and where the strategy lies among them."""

    name: str
    what: str
    """What they do, after their name and a colon."""
    means: tuple[float, ...]
    """One a trader, sorted."""
    mean: float
    better_than: float
    """The share of them that the strategy is better than, ties counting half."""


@dataclass(frozen=True, slots=True)
class Random:
    """The comparison with random traders, over those positions that they could be given."""

    positions: int
    strategy: float
    """The strategy's mean net return over those positions."""
    edge: Estimate
    """What a position made more than those of the first kind of random trader."""
    kinds: tuple[RandomTraders, ...]


@dataclass(frozen=True, slots=True)
class Deflated:
    """The deflated Sharpe ratio."""

    probability: float
    """That the true Sharpe ratio is above what the best of so many trials has by luck."""
    trials: int
    """This one included."""
    expected_best: float
    """Annual Sharpe ratio that the best of them is expected to have without skill."""
    daily_sharpe: float
    """This one's, of a day."""


@dataclass(frozen=True, slots=True)
class Measures:
    """Figures of the net positions' days; None where there is no such figure, as a Sortino ratio without a loss."""

    days: int
    days_a_year: float
    block: int
    """Length, in days, of the blocks that the bootstrap draws."""
    annual_return: Estimate | None
    sharpe: Estimate | None
    sortino: Estimate | None
    calmar: Estimate | None
    turnover: Estimate | None
    """Worth bought and sold in a year, over the equity."""
    exposure: Estimate | None
    """Mean worth of all positions, over the equity."""
    deflated: Deflated | None


@dataclass(frozen=True, slots=True)
class Net:
    """The net positions: one a symbol, sized on the equity."""

    curve: Curve
    """A share of the starting capital, gains reinvested."""
    positions: int
    no_room: int
    costs: float
    """Of all fills, as a share of the starting capital."""
    largest: float
    """The largest worth of all positions at a close, over the equity."""
    measures: Measures | None
    """None for a period of too few days."""


class Evidence(StrEnum):
    """What the figures allow to be said."""

    NOTHING = "nothing"
    """There is nothing to judge, or nothing to compare it with."""
    TOO_FEW = "too_few"
    NONE = "none"
    SKILL = "skill"
    HARM = "harm"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The report in a sentence."""

    evidence: Evidence
    sentence: str


@dataclass(frozen=True, slots=True)
class Money:
    """What the positions made, as fractions of their entry prices; None where there are none of the kind."""

    expectancy: Estimate | None
    """Mean net return of an opened position."""
    expectancy_completed: Estimate | None
    """Mean net return of a completed one."""
    mean_gain: float | None
    mean_loss: float | None
    profit_factor: float | None
    """Sum of gains over sum of losses; None without losses."""
    r_multiple: Estimate | None
    """Mean net return in units of what was risked: the way from the entry to the stop."""
    r_counts: tuple[int, ...]
    """Positions by R-multiple: up to -1, to 0, to 1, to 2, and above."""
    exposure: float | None
    """Share of the capital's time that was in positions."""
    mean_held_ms: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """All that the page and the terminal show."""

    title: str
    head: tuple[tuple[str, str], ...]
    banner: str | None
    """Loud: what the whole report does not say, because of who answered."""
    cautions: tuple[str, ...]
    verdict: Verdict
    counts: Counts
    hit_rate: Estimate | None
    """Of completed positions, by Wilson."""
    hit_rate_blocks: Estimate | None
    """The same by block bootstrap, where positions overlap."""
    money: Money
    overlap: Overlap | None
    per_position: Curve
    """Sums over opened positions in order of exit, as fractions of one position."""
    over_time: Curve
    """A share of the starting capital."""
    net: Net | None
    """None where no outcome says what was ordered, or there are no bars."""
    hold: Hold | None
    random: Random | None
    random_missing: str
    """Why there is no comparison with random traders; empty where there is."""
    calibration: Calibration
    probabilities: Probabilities | None
    """None where no completed position carries probabilities."""
    breakdowns: tuple[Breakdown, ...]
