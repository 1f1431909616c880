"""What a report is made from: outcomes, bars, signals, and how positions are sized. Plain data; times are milliseconds since 1970."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from schemas import Candle, Restatement, Signal, SignalOutcome
from services.scoring.report.position_sizing import Sizing


@dataclass(frozen=True, slots=True)
class ReportBar:
    """A closed bar. Prices are those that were traded: `ReportInput.restatements` restate them."""

    symbol: str
    interval: str
    ts_open_ms: int
    ts_close_ms: int
    open: float
    high: float
    low: float
    close: float

    @classmethod
    def of(cls, bar: Candle) -> Self:
        """Return what the report takes of `bar`."""
        return cls(bar.symbol, bar.interval, bar.ts_open_ms, bar.ts_close_ms, bar.open, bar.high, bar.low, bar.close)


@dataclass(frozen=True, slots=True)
class Trials:
    """What was tried before on the same data or in the same place: the more, the better the best of them looks by luck."""

    count: int = 0
    """Settings that were tried, this one left out."""
    daily_sharpes: tuple[float, ...] = ()
    """Sharpe ratios of a day, of those whose results are known."""


@dataclass(frozen=True, slots=True)
class ReportInput:
    """What is to be judged."""

    title: str
    outcomes: Sequence[SignalOutcome]
    """In the order in which they were published: of several with one `signal_id` the first is kept."""
    bars: Mapping[str, Sequence[ReportBar]]
    """Closed bars by symbol, of the outcomes' intervals; of several with one end the last is kept."""
    cost_bps: float
    """Of each side of a trade, slippage included, in basis points: what buy-and-hold and the random traders pay. The outcomes'
    returns are net already."""
    facts: Mapping[str, str]
    """Shown in the head as they are: engine, model, settings."""
    restatements: Sequence[Restatement] = ()
    """Splits and dividends that returns count and `bars` and the outcomes' entry prices are not yet adjusted for."""
    max_jump: float = math.inf
    """A close that is more than this many times the one before it, or less than the inverse, is suspected to follow a split."""
    changes: Sequence[Signal] = ()
    """Signals to exit or hold, for the net positions."""
    sizing: Sizing = field(default_factory=Sizing)
    trials: Trials = field(default_factory=Trials)
