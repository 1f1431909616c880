"""Traders without skill, each with a habit of its own, on markets that give nothing away: signals, the judge's fills, a report's input.

Everything goes through the judge, as in a backtest: what is measured with these is the whole chain from a signal to the sentence.
"""

from __future__ import annotations

import functools
import itertools
import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas import Instrument, MarketFeatures, RunMode, Signal, SignalOutcome
from schemas.examples import EXAMPLES
from services.core.calendar import ALWAYS_OPEN, SessionCalendar
from services.core.settings import ScoringSettings
from services.feeds.samples import load_splits, load_stocks
from services.scoring.fill_rules import FillRules
from services.scoring.judge import Judge
from services.scoring.report import ReportBar, ReportInput

SYMBOLS: Final = ("AAPL.XNAS", "IBM.XNYS", "MSFT.XNAS")
START_MS: Final = 1_704_067_200_000
"""2024-01-01T00:00Z."""
HOUR_MS: Final = 3_600_000
_PART_OF_BAR: Final = 12
"""Steps of the walk inside a bar, from which its high and low come."""
_TICK: Final = Decimal("0.01")
_MODE: Final = RunMode.DEMO
_ATR_BARS: Final = 14
_DECISION_MS: Final = 700
_EXAMPLE: Final = EXAMPLES[Signal].model_dump() | {"run_mode": _MODE, "source": "llm"}
FIRST: Final = 20
"""The bar at whose close the first signal is made."""


@dataclass(frozen=True)
class Habit:
    """How a trader trades: entry, stop and target in ATR from the last close, bars that the view is for, bars between signals."""

    limit: bool = False
    entry: float = 0.5
    """How much worse than the close a market entry may be; how much better a limit must be."""
    stop: float = 2.0
    target: float = 2.0
    horizon: int = 8
    every: int = 6
    valid_bars: int = 1
    mixed: bool = False
    """Draws another habit for each signal."""
    turns: float | None = None
    """Chance a bar that a view, one for all symbols, turns; None tosses a coin for each signal."""


HABITS: Final[Mapping[str, Habit]] = {
    "market entries": Habit(),
    "limit entries": Habit(limit=True, entry=0.4, valid_bars=3),
    "near target": Habit(target=0.5),
    "far stop": Habit(stop=5.0, horizon=12),
    "near target and far stop": Habit(stop=4.0, target=0.5, horizon=20, every=12),
    "horizon only": Habit(stop=60.0, target=60.0, horizon=6),
    "mixed": Habit(mixed=True, horizon=10),
    "one view kept for long, overlapping": Habit(horizon=10, every=2, turns=0.03),
}


@dataclass(frozen=True)
class Walk:
    """How a market without anything to find goes: moves an hour, in log prices."""

    volatility: float = 0.01
    drift: float = 0.0
    bursts: float = 0.0
    """How much the volatility itself wanders: 0 for never."""
    common: float = 0.5
    """Share of the variance that all symbols have in common."""
    gaps: float = 0.2
    """Standard deviation of the move from a close to the next open, in that of an hour."""


WALKS: Final[Mapping[str, Walk]] = {
    "driftless": Walk(),
    "trending": Walk(drift=0.001),
    "volatile": Walk(volatility=0.015, bursts=0.25),
}


def played(habit: Habit, walk: Walk, seed: int, *, bars: int, symbols: Sequence[str] = SYMBOLS, skill: float = 0.0) -> ReportInput:
    """Return a report's input on the habit's signals in a market of its own; with `skill` p it knows the way in that share of them."""
    return traded(habit, walked(walk, seed, bars, symbols), seed, skill)


def traded(habit: Habit, market: Mapping[str, Sequence[ReportBar]], seed: int, skill: float = 0.0) -> ReportInput:
    """Return a report's input on the habit's signals in `market`, judged at the default costs."""
    settings = ScoringSettings()
    generator = np.random.default_rng([seed, 1])
    outcomes: list[SignalOutcome] = []
    longest = max(map(len, market.values()))
    turns = None if habit.turns is None else np.cumsum(generator.random(longest) < habit.turns) % 2 == 0
    for symbol, of_symbol in market.items():
        judge = Judge(FillRules.of(settings, math.inf, _instrument(symbol)), SessionCalendar.of(ALWAYS_OPEN))
        atr = _atr(of_symbol)
        for at, bar in enumerate(of_symbol):
            outcomes += judge.bar(_features(bar))
            if at >= FIRST and (at - FIRST) % habit.every == 0 and at + 40 < len(of_symbol):
                own = _drawn(generator, habit)
                coin = bool(generator.integers(2)) if turns is None else bool(turns[at])
                knows = generator.random() < skill
                long = of_symbol[at + own.horizon].close > bar.close if knows else coin
                outcomes += judge.signal(_signal(own, bar, at, float(atr[at]), long=long))
    return ReportInput("Luck", outcomes, market, settings.cost_bps + settings.slippage_bps, {"Engine": "none"})


def walked(walk: Walk, seed: int, bars: int, symbols: Sequence[str]) -> dict[str, list[ReportBar]]:
    """Return hourly bars of each symbol, drawn finer than they are shown, so that highs and lows are what a walk has."""
    generator = np.random.default_rng(seed)
    together = generator.normal(0, 1, (bars, _PART_OF_BAR))
    level = (
        np.exp(walk.bursts * np.cumsum(generator.normal(0, 1, bars)) - np.arange(bars) * walk.bursts**2 / 2)
        if walk.bursts
        else np.ones(bars)
    )
    level = np.clip(level, 0.3, 3.0)
    found = {}
    for symbol in symbols:
        own = generator.normal(0, 1, (bars, _PART_OF_BAR))
        moves = math.sqrt(walk.common) * together + math.sqrt(1 - walk.common) * own
        moves = walk.drift / _PART_OF_BAR + walk.volatility * level[:, None] * moves / math.sqrt(_PART_OF_BAR)
        gaps = walk.gaps * walk.volatility * level * generator.normal(0, 1, bars)
        found[symbol] = _bars(symbol, moves, gaps)
    return found


@functools.cache
def _stocks() -> dict[str, list[ReportBar]]:
    """Return the demo's stocks of `SYMBOLS` over the days that all have, adjusted for splits, as if their days were hours."""
    splits, stocks = load_splits(_MODE), load_stocks(_MODE)
    days = min(len(stocks[symbol]) for symbol in SYMBOLS)
    found = {}
    for symbol in SYMBOLS:
        bars = []
        for number, day in enumerate(stocks[symbol][-days:]):
            ratio = math.prod(one.ratio for one in splits if one.symbol == symbol and day.ts_open_ms < one.effective_ms)
            prices = [round(price / ratio, 2) for price in (day.open, day.high, day.low, day.close)]
            open_ms = START_MS + number * HOUR_MS
            bars.append(ReportBar(symbol, "1h", open_ms, open_ms + HOUR_MS, *prices))
        found[symbol] = bars
    return found


def stocks_from(seed: int, bars: int) -> dict[str, list[ReportBar]]:
    """Return a stretch of the demo's stocks: daily bars, as if each day were an hour."""
    stocks = _stocks()
    first = int(np.random.default_rng([seed, 2]).integers(len(stocks[SYMBOLS[0]]) - bars))
    return {symbol: of_symbol[first : first + bars] for symbol, of_symbol in stocks.items()}


def _bars(symbol: str, moves: NDArray[np.float64], gaps: NDArray[np.float64]) -> list[ReportBar]:
    path, bars = 0.0, []
    for number, (inside, gap) in enumerate(zip(moves, gaps, strict=True)):
        logs = path + gap + np.concatenate([[0.0], np.cumsum(inside)])
        prices = [round(float(price), 2) for price in 100 * np.exp(logs)]
        open_ms = START_MS + number * HOUR_MS
        bars.append(ReportBar(symbol, "1h", open_ms, open_ms + HOUR_MS, prices[0], max(prices), min(prices), prices[-1]))
        path = float(logs[-1])
    return bars


def _drawn(generator: np.random.Generator, habit: Habit) -> Habit:
    if not habit.mixed:
        return habit
    limit = bool(generator.integers(2))
    return Habit(
        limit=limit,
        entry=float(generator.uniform(0.1, 0.8)),
        stop=float(generator.uniform(0.5, 4)),
        target=float(generator.uniform(0.5, 4)),
        horizon=int(generator.integers(2, habit.horizon + 1)),
        valid_bars=int(generator.integers(1, 4)),
    )


def _signal(habit: Habit, bar: ReportBar, number: int, atr: float, *, long: bool) -> Signal:
    side, at_ms = (1 if long else -1), bar.ts_close_ms
    away = -habit.entry if habit.limit else habit.entry
    entry, stop, target = (_on_tick(bar.close + side * atr * one) for one in (away, away - habit.stop, away + habit.target))
    return Signal.model_validate(
        _EXAMPLE
        | {
            "symbol": bar.symbol,
            "interval": bar.interval,
            "as_of": {"market": _EXAMPLE["as_of"]["market"] | {"offset": number, "ts_ms": at_ms, "ts_event_ms": at_ms}},
            "ts_decided_ms": at_ms + _DECISION_MS,
            "signal_id": uuid.uuid5(uuid.NAMESPACE_OID, f"{bar.symbol} {number}"),
            "action": "buy" if long else "sell",
            "entry_type": "limit" if habit.limit else "market",
            "ref_price": _on_tick(bar.close),
            "entry": entry,
            "stop": stop,
            "target": target,
            "horizon_bars": habit.horizon,
            "horizon_end_ms": at_ms + habit.horizon * HOUR_MS,
            "valid_until_ms": at_ms + (habit.valid_bars - 1) * HOUR_MS + 60_000,
        }
    )


def _on_tick(price: float) -> str:
    return str(max(_TICK, Decimal(repr(price)).quantize(_TICK)))


def _atr(bars: Sequence[ReportBar]) -> NDArray[np.float64]:
    ranges = [bars[0].high - bars[0].low]
    ranges += [max(bar.high, before.close) - min(bar.low, before.close) for before, bar in itertools.pairwise(bars)]
    sums = np.concatenate([[0.0], np.cumsum(ranges)])
    ends = np.arange(1, len(ranges) + 1)
    reach = np.minimum(ends, _ATR_BARS)
    means: NDArray[np.float64] = (sums[ends] - sums[ends - reach]) / reach
    return means


def _features(bar: ReportBar) -> MarketFeatures:
    values = {name: getattr(bar, name) for name in ("symbol", "interval", "ts_open_ms", "ts_close_ms", "open", "high", "low", "close")}
    return MarketFeatures.model_validate(values | {"schema_version": 1, "run_mode": _MODE, "volume": 1.0, "closed": True, "features": {}})


def _instrument(symbol: str) -> Instrument:
    plain = {"price_increment": str(_TICK), "tick_table": None, "fee_bps": None, "fee_per_unit": None, "slippage_bps": None}
    return Instrument.model_validate(
        EXAMPLES[Instrument].model_dump() | plain | {"run_mode": _MODE, "symbol": symbol, "calendar": ALWAYS_OPEN}
    )
