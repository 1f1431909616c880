"""Outcomes and bars for tests: a seeded random walk, and paper traders on it whose skill is planted.

A trader opens at a bar's close and ends a fixed number of bars later. With `skill` p it knows, in a share p of its trades, which way
the market will go, and tosses a coin in the others; 0 is a coin-flip trader, 1 an oracle.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from schemas import Action, ExitReason, Order, RunMode, SignalOutcome
from schemas.base import interval_ms
from schemas.signal import Source
from services.scoring.report import ReportBar, ReportInput

START_MS = 1_704_067_200_000
"""2024-01-01T00:00Z."""
HOUR_MS = 3_600_000
SYMBOLS = ("AAPL.XNAS", "IBM.XNYS", "MSFT.XNAS")
COST_BPS = 2.0


@dataclass(frozen=True)
class Plan:
    """How the market goes and how the trader trades."""

    seed: int = 1
    bars: int = 1_500
    symbols: tuple[str, ...] = SYMBOLS
    drift: float = 0.0
    """Mean log return of a bar."""
    volatility: float = 0.01
    common: float = 0.0
    """Share of the variance that all symbols have in common."""
    skill: float = 0.0
    conviction_knows: float = 0.0
    """How much of the conviction is the return to come, the rest being noise."""
    long_only: bool = False
    turns: float | None = None
    """Chance a bar that the trader's view, one for all symbols, turns; None tosses a coin for each position."""
    stop: float = math.inf
    """Loss, as a fraction, at which a position ends; at twice that gain it ends as well."""
    held: int = 4
    every: int = 5
    """Bars between entries; less than `held` makes positions of one symbol overlap."""
    source: Source = "llm"
    run_mode: RunMode = RunMode.SHADOW


def walk(plan: Plan) -> dict[str, list[ReportBar]]:
    """Return hourly bars of each symbol."""
    generator = np.random.default_rng(plan.seed)
    together = generator.normal(0, plan.volatility, plan.bars)
    bars = {}
    for symbol in plan.symbols:
        own = generator.normal(0, plan.volatility, plan.bars)
        moves = plan.drift + math.sqrt(plan.common) * together + math.sqrt(1 - plan.common) * own
        closes = 100 * np.exp(np.cumsum(moves))
        bars[symbol] = hourly(symbol, closes.tolist(), START_MS + HOUR_MS)
    return bars


def hourly(symbol: str, closes: Sequence[float], first_ms: int = START_MS, interval: str = "1h") -> list[ReportBar]:
    """Return hourly bars with these closes, the first of which ends at `first_ms`; each opens at the close before it."""
    bars, before = [], closes[0] if closes else 0.0
    for number, close in enumerate(closes):
        end_ms = first_ms + number * HOUR_MS
        bars.append(ReportBar(symbol, interval, end_ms - HOUR_MS, end_ms, before, max(before, close), min(before, close), close))
        before = close
    return bars


def trade(plan: Plan, bars: Mapping[str, Sequence[ReportBar]]) -> list[SignalOutcome]:
    """Return the trader's outcomes, one in ten of them never opened and one in ten closed early."""
    generator = np.random.default_rng(plan.seed + 1_000)
    views = None if plan.turns is None else np.cumsum(generator.random(plan.bars) < plan.turns) % 2 == 0
    outcomes: list[SignalOutcome] = []
    for symbol, of_symbol in bars.items():
        for first in range(0, len(of_symbol) - plan.held, plan.every):
            begin = of_symbol[first]
            kind = int(generator.integers(10))
            knows = generator.random() < plan.skill
            coin = bool(generator.integers(2)) if views is None else bool(views[first])
            long = plan.long_only or (of_symbol[first + plan.held].close > begin.close if knows else coin)
            gains = [(1 if long else -1) * (bar.close / begin.close - 1) for bar in of_symbol[first + 1 : first + plan.held + 1]]
            held = next((at for at, gain in enumerate(gains, 1) if gain <= -plan.stop or gain >= 2 * plan.stop), plan.held)
            net = gains[held - 1] - 2 * COST_BPS * 1e-4
            known = 0.5 + np.clip(net * 10, -0.5, 0.5)
            conviction = float(plan.conviction_knows * known + (1 - plan.conviction_knows) * generator.random())
            number, end = len(outcomes), of_symbol[first + held]
            if kind == 0:
                outcomes.append(
                    outcome(
                        number=number,
                        symbol=symbol,
                        long=long,
                        entry_ms=None,
                        exit_ms=begin.ts_close_ms,
                        entry=None,
                        leave=None,
                        net=None,
                        conviction=conviction,
                        reason=ExitReason.UNFILLED,
                        bars_held=0,
                        source=plan.source,
                        run_mode=plan.run_mode,
                    )
                )
                continue
            reason = ExitReason.HORIZON if held == plan.held else ExitReason.TARGET if net > 0 else ExitReason.STOP
            outcomes.append(
                outcome(
                    number=number,
                    symbol=symbol,
                    long=long,
                    entry_ms=begin.ts_close_ms,
                    exit_ms=end.ts_close_ms,
                    entry=begin.close,
                    leave=end.close,
                    net=net,
                    conviction=conviction,
                    reason=ExitReason.SUPERSEDED if kind == 1 else reason,
                    bars_held=held,
                    source=plan.source,
                    run_mode=plan.run_mode,
                )
            )
    return sorted(outcomes, key=lambda one: one.ts_exit_ms)


def given(plan: Plan) -> ReportInput:
    """Return the report's input for the plan."""
    bars = walk(plan)
    return ReportInput("Test report", trade(plan, bars), bars, COST_BPS, {"Engine": "none", "Model": "none"})


def outcome(
    *,
    number: int = 0,
    symbol: str = "AAPL.XNAS",
    long: bool = True,
    entry_ms: int | None = START_MS,
    exit_ms: int = START_MS + 4 * HOUR_MS,
    entry: float | None = 100.0,
    leave: float | None = 101.0,
    net: float | None = 0.01,
    conviction: float = 0.5,
    reason: ExitReason = ExitReason.HORIZON,
    bars_held: int = 4,
    source: Source = "llm",
    run_mode: RunMode = RunMode.SHADOW,
    interval: str = "1h",
) -> SignalOutcome:
    """Return one outcome; its id is a function of `number`."""
    return SignalOutcome(
        schema_version=1,
        run_mode=run_mode,
        signal_id=uuid.UUID(int=number),
        symbol=symbol,
        interval=interval,
        mode="fast",
        action=Action.BUY if long else Action.SELL,
        source=source,
        vision=("fresh", "stale", "absent")[number % 3],
        conviction=conviction,
        exit_reason=reason,
        ts_entry_ms=entry_ms,
        ts_exit_ms=exit_ms,
        entry=None if entry is None else f"{entry:.4f}",
        exit=None if leave is None else f"{leave:.4f}",
        return_net=net,
        bars_held=bars_held,
        order=None if entry_ms is None or not entry else market_order(entry_ms, entry, bars_held, interval, long=long),
    )


def market_order(entry_ms: int, price: float, bars_held: int, interval: str = "1h", *, long: bool = True) -> Order:
    """Return the order to open at the close `price` and to hold for so many bars, whatever comes."""
    far, near = price * 1_000, price / 1_000
    return Order(
        entry_type="market",
        ref_price=f"{price:.6f}",
        entry=f"{far if long else near:.6f}",
        stop=f"{near if long else far:.6f}",
        target=f"{far if long else near:.6f}",
        horizon_bars=max(1, bars_held),
        ts_stands_ms=entry_ms,
        ts_from_ms=entry_ms,
        ts_until_ms=entry_ms + interval_ms(interval),
        cost_bps=COST_BPS,
        slippage_bps=0.0,
    )
