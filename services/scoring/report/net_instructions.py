"""What the net positions follow: orders from outcomes, exits and holds from signals; and the bars that they are played on."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from schemas import Action, ExitReason, Order, Signal, SignalOutcome, interval_ms
from services.scoring.fill_rules import FillRules
from services.scoring.paper_position import Bar, PaperPosition
from services.scoring.report.report_input import ReportBar
from services.scoring.signal_times import change_acts_ms


@dataclass(frozen=True, slots=True)
class NetOrder:
    """A signal to buy or sell. It acts in the first bar that opens at `paper.from_ms` or later."""

    paper: PaperPosition
    rules: FillRules

    @property
    def at_ms(self) -> int:
        """Return from when it acts."""
        return self.paper.from_ms


class ChangeKind(StrEnum):
    """What is asked beside opening."""

    EXIT = "exit"
    """Close the position and drop the pending order."""
    HOLD = "hold"
    """Keep the position on, at least to the hold's own horizon."""
    CANCEL = "cancel"
    """Withdraw one signal: its pending order, or the position whose levels it gave."""


@dataclass(frozen=True, slots=True)
class NetChange:
    """An instruction that opens nothing."""

    kind: ChangeKind
    at_ms: int
    horizon_end_ms: int = 0
    """Of a hold."""
    signal_id: str = ""
    """Of a cancel."""


Instruction = NetOrder | NetChange

_KINDS: Final = {Action.EXIT: ChangeKind.EXIT, Action.HOLD: ChangeKind.HOLD}


def net_bars(bars: Sequence[ReportBar]) -> list[Bar]:
    """Return a symbol's bars of its shortest interval in order of time, without those that overlap the one before.

    Prices are as they were traded. Of several bars with one end the last is kept.
    """
    if not bars:
        return []
    shortest = min({bar.interval for bar in bars}, key=interval_ms)
    by_end = {bar.ts_close_ms: bar for bar in bars if bar.interval == shortest}
    kept: list[Bar] = []
    for _, bar in sorted(by_end.items()):
        if bar.ts_open_ms < bar.ts_close_ms and (not kept or bar.ts_open_ms >= kept[-1].ts_close_ms):
            kept.append(Bar(bar.ts_open_ms, bar.ts_close_ms, bar.open, bar.high, bar.low, bar.close, 0))
    return kept


def instructions_of(
    outcomes: Iterable[SignalOutcome], changes: Iterable[Signal], bars: Mapping[str, Sequence[ReportBar]]
) -> dict[str, list[Instruction]]:
    """Return what to do by symbol: of symbols with an order whose outcome says what was ordered, and with bars.

    `changes` are the signals to exit or hold; others among them are left out.
    """
    found: dict[str, list[Instruction]] = defaultdict(list)
    closes: dict[tuple[str, str], list[int]] = {}
    for outcome in outcomes:
        order = outcome.order
        if order is None or not bars.get(outcome.symbol):
            continue
        key = (outcome.symbol, outcome.interval)
        if order.ts_horizon_ms is None and key not in closes:
            closes[key] = sorted({bar.ts_close_ms for bar in bars[outcome.symbol] if bar.interval == outcome.interval})
        horizon_ms = _counted_horizon_ms(order, outcome.interval, closes[key]) if order.ts_horizon_ms is None else order.ts_horizon_ms
        paper = PaperPosition.of_order(outcome, order, horizon_ms)
        found[outcome.symbol].append(NetOrder(paper, FillRules(order.cost_bps, order.slippage_bps, order.fee)))
        if outcome.exit_reason is ExitReason.CANCELLED:
            found[outcome.symbol].append(NetChange(ChangeKind.CANCEL, outcome.ts_exit_ms, signal_id=str(outcome.signal_id)))
    for signal in changes:
        if signal.symbol in found and (kind := _KINDS.get(signal.action)) is not None:
            found[signal.symbol].append(NetChange(kind, change_acts_ms(signal), horizon_end_ms=signal.horizon_end_ms or 0))
    return dict(found)


def _counted_horizon_ms(order: Order, interval: str, closes: Sequence[int]) -> int:
    """Return the end of a horizon that the outcome does not state: so many bars after the one that the signal stands on."""
    last = bisect_left(closes, order.ts_stands_ms + 1) - 1 + order.horizon_bars
    if 0 <= last < len(closes):
        return closes[last]
    return order.ts_stands_ms + order.horizon_bars * interval_ms(interval)


def acting_order(instruction: Instruction) -> tuple[int, int, int, float, str]:
    """Return the key by which the instructions on one symbol are followed: the last one of those that act in one bar holds.

    Of orders that act from one moment the one on the later bar is last, then the one with more conviction. Holds and exits come
    before orders, so that an order beside an `exit` opens.
    """
    if isinstance(instruction, NetChange):
        return instruction.at_ms, -1, 0, 0.0, instruction.kind
    paper = instruction.paper
    return instruction.at_ms, 0, paper.key[0], paper.conviction, paper.signal_id
