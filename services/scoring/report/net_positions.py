"""Plays signals as one account would trade them: one position a symbol, sized on the equity of the moment, with the judge's own fills.

Pure. The rules are in `docs/report.md`; bars of all symbols are played in order of time, and what happens at one instant in this order:
closes of bars, positions that end at the next open, then openings from the highest conviction down.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import groupby
from typing import Final

from services.scoring.fill_rules import FillRules
from services.scoring.paper_position import Bar, PaperPosition, PositionEnd
from services.scoring.report.net_instructions import ChangeKind, Instruction, NetOrder, acting_order
from services.scoring.report.position_sizing import Sizing
from services.scoring.restatements import Restatements

_BPS: Final = 1e-4
END_OF_DATA: Final = "end of data"


@dataclass(frozen=True, slots=True)
class Fill:
    """One purchase or sale. `worth` and `cost` are shares of the starting capital; `units` times `price` is the worth."""

    ts_ms: int
    symbol: str
    side: int
    """1 bought, -1 sold."""
    units: float
    price: float
    worth: float
    cost: float
    reason: str
    opens: bool


@dataclass(frozen=True, slots=True)
class NetTrade:
    """A position from its opening to its end; what it made is a share of the starting capital."""

    symbol: str
    side: int
    entry_ms: int
    exit_ms: int
    units: float
    made: float
    """Net of the costs of both sides."""
    risked: float
    """What it would have lost from its entry to its first stop, costs aside."""


@dataclass(frozen=True, slots=True)
class NetAccount:
    """The account over time. It starts with 1; `at_ms` has the start, and every close while there was something to mark."""

    at_ms: tuple[int, ...]
    equity: tuple[float, ...]
    gross: tuple[float, ...]
    """Worth of all positions, long and short, as a share of the equity."""
    fills: tuple[Fill, ...]
    trades: tuple[NetTrade, ...]
    no_room: int
    """Orders that were filled in the market and not opened, since the caps left no room."""


class _Phase(IntEnum):
    CLOSE = 0
    OPEN = 1


@dataclass(slots=True)
class _Held:
    """An open position."""

    paper: PaperPosition
    rules: FillRules
    stands_ms: int
    """Prices are on the scale of this moment."""
    units: float
    entry: float
    stop_distance: float
    entry_cost: float
    mark: float
    levels_of: str
    """The signal whose stop, target and horizon are in force."""
    end: PositionEnd | None = None
    """How it ends within the bar that is open, applied at the bar's close."""

    @property
    def gain(self) -> float:
        """Return what it is worth more than at its entry, costs aside."""
        return self.paper.side * self.units * (self.mark - self.entry)


@dataclass(slots=True)
class _Symbol:
    name: str
    restatements: Restatements
    instructions: list[Instruction]
    next: int = 0
    held: _Held | None = None
    pending: NetOrder | None = None


@dataclass(slots=True)
class _Account:
    sizing: Sizing
    symbols: int
    balance: float = 1.0
    """Capital with all that has been realised and paid, open gains left out."""
    held: dict[str, _Held] = field(default_factory=dict)
    fills: list[Fill] = field(default_factory=list)
    trades: list[NetTrade] = field(default_factory=list)
    no_room: int = 0

    @property
    def equity(self) -> float:
        return self.balance + sum(one.gain for one in self.held.values())

    @property
    def gross(self) -> float:
        return sum(one.units * one.mark for one in self.held.values())

    def open(self, symbol: _Symbol, order: NetOrder, end: PositionEnd | None) -> None:
        """Open what the caps leave room for; until the bar closes a unit is worth what was paid for it."""
        paper, rules = order.paper, order.rules
        price = float(paper.price)
        cost_share = rules.cost_bps * _BPS + rules.fee / price
        units = self.sizing.units(price=price, stop=paper.stop, cost=cost_share, equity=self.equity, gross=self.gross, symbols=self.symbols)
        if units <= 0:
            self.no_room += 1
            return
        cost = units * price * cost_share
        self.balance -= cost
        held = _Held(paper, rules, paper.key[0], units, price, abs(price - paper.stop), cost, price, levels_of=paper.signal_id, end=end)
        symbol.held = self.held[symbol.name] = held
        assert paper.opened_ms is not None  # noqa: S101 - it was filled
        self.fills.append(Fill(paper.opened_ms, symbol.name, paper.side, units, price, units * price, cost, "signal", opens=True))

    def close(self, symbol: _Symbol, reason: str, at_ms: int, price: float) -> None:
        """Close the symbol's position at `price`."""
        held = self.held.pop(symbol.name)
        symbol.held = None
        cost = held.units * (price * held.rules.cost_bps * _BPS + held.rules.fee)
        gain = held.paper.side * held.units * (price - held.entry)
        self.balance += gain - cost
        self.fills.append(Fill(at_ms, symbol.name, -held.paper.side, held.units, price, held.units * price, cost, reason, opens=False))
        opened_ms = held.paper.opened_ms
        assert opened_ms is not None  # noqa: S101 - it is open
        made, risked = gain - cost - held.entry_cost, held.units * held.stop_distance
        self.trades.append(NetTrade(symbol.name, held.paper.side, opened_ms, at_ms, held.units, made, risked))


def play(
    instructions: Mapping[str, Iterable[Instruction]],
    bars: Mapping[str, Sequence[Bar]],
    restatements: Mapping[str, Restatements],
    sizing: Sizing,
    start_ms: int,
) -> NetAccount:
    """Return the account that follows `instructions` by symbol on `bars`, which are in order of time and of one interval a symbol.

    Papers are played here and must not have been played before. Capital is shared by the symbols of `instructions`. What is open when
    a symbol's bars end is closed at its last close, costs paid.
    """
    symbols = {
        name: _Symbol(name, restatements.get(name, Restatements()), sorted(of_symbol, key=acting_order))
        for name, of_symbol in sorted(instructions.items())
    }
    account = _Account(sizing, max(1, len(symbols)))
    at_ms, equity, gross, known_fills = [start_ms], [1.0], [0.0], 0
    events = heapq.merge(*(_events(name, bars.get(name, ())) for name in symbols))
    for (now_ms, phase), together in groupby(events, key=lambda one: one[:2]):
        happening = [(symbols[name], bars[name][number], number) for *_, name, number in together]
        if phase is _Phase.OPEN:
            _at_opens(account, [(symbol, bar) for symbol, bar, _ in happening])
            continue
        changed = bool(account.held) or len(account.fills) > known_fills
        for symbol, bar, number in happening:
            _at_close(account, symbol, bar, last=number + 1 == len(bars[symbol.name]))
        if changed and now_ms >= start_ms:
            worth, known_fills = account.equity, len(account.fills)
            at_ms.append(now_ms)
            equity.append(worth)
            gross.append(account.gross / worth if worth > 0 else 0.0)
    fills = sorted(account.fills, key=lambda one: one.ts_ms)  # what opens and ends within one bar stays in this order
    trades = sorted(account.trades, key=lambda one: (one.entry_ms, one.exit_ms, one.symbol))
    return NetAccount(tuple(at_ms), tuple(equity), tuple(gross), tuple(fills), tuple(trades), account.no_room)


def _events(name: str, bars: Sequence[Bar]) -> Iterator[tuple[int, _Phase, str, int]]:
    """Yield the opens and closes of a symbol's bars in order of time."""
    for number, bar in enumerate(bars):
        yield bar.ts_open_ms, _Phase.OPEN, name, number
        yield bar.ts_close_ms, _Phase.CLOSE, name, number


def _at_opens(account: _Account, opening: Sequence[tuple[_Symbol, Bar]]) -> None:
    """Play the bars of all symbols that open at one instant: ends at the open first, then openings."""
    for symbol, bar in opening:
        while symbol.next < len(symbol.instructions) and symbol.instructions[symbol.next].at_ms <= bar.ts_open_ms:
            _follow(symbol, symbol.instructions[symbol.next])
            symbol.next += 1
        held = symbol.held
        if held is None:
            continue
        scaled = symbol.restatements.scaled(bar, held.stands_ms)
        held.mark = scaled.open
        held.end = held.paper.play(scaled, held.rules, jumped=False)
        if held.end is not None and held.end.ts_exit_ms == bar.ts_open_ms:
            account.close(symbol, held.end.reason.value, held.end.ts_exit_ms, float(held.end.exit or 0))
    filled = []
    for symbol, bar in opening:
        order = symbol.pending
        if symbol.held is not None or order is None:
            continue
        end = order.paper.play(symbol.restatements.scaled(bar, order.paper.key[0]), order.rules, jumped=False)
        if order.paper.opened_ms is not None:
            filled.append((symbol, order, end))
        if order.paper.opened_ms is not None or end is not None:
            symbol.pending = None
    for symbol, order, end in sorted(filled, key=lambda one: (-one[1].paper.conviction, one[0].name)):
        account.open(symbol, order, end)


def _follow(symbol: _Symbol, instruction: Instruction) -> None:
    """Note what an instruction wants; of several before one bar the last one holds."""
    held = symbol.held
    if isinstance(instruction, NetOrder):
        if held is None:
            symbol.pending = instruction
        elif held.paper.side == instruction.paper.side:
            symbol.pending = None
            _renew(symbol, held, instruction.paper)
        else:
            symbol.pending = instruction
            held.paper.turned_ms = instruction.at_ms
    elif instruction.kind is ChangeKind.CANCEL:
        if symbol.pending is not None and symbol.pending.paper.signal_id == instruction.signal_id:
            symbol.pending = None
        if held is not None and held.levels_of == instruction.signal_id:
            held.paper.cancelled_ms = instruction.at_ms
    elif instruction.kind is ChangeKind.EXIT:
        symbol.pending = None
        if held is not None:
            held.paper.turned_ms = instruction.at_ms
    elif held is not None:
        held.paper.horizon_end_ms = max(held.paper.horizon_end_ms, instruction.horizon_end_ms)


def _renew(symbol: _Symbol, held: _Held, newer: PaperPosition) -> None:
    """Give the open position the newer signal's stop, target and horizon; its size stays."""
    paper = held.paper
    paper.turned_ms = paper.cancelled_ms = None
    paper.horizon_end_ms, held.levels_of = newer.horizon_end_ms, newer.signal_id
    paper.stop, paper.target, paper.target_fill = (
        symbol.restatements.scaled_price(price, newer.key[0], held.stands_ms) for price in (newer.stop, newer.target, newer.target_fill)
    )


def _at_close(account: _Account, symbol: _Symbol, bar: Bar, *, last: bool) -> None:
    """Apply how the position ended within the bar, or mark it at the close; sell it at the symbol's last one."""
    held = symbol.held
    if held is None:
        return
    if held.end is not None:
        account.close(symbol, held.end.reason.value, held.end.ts_exit_ms, float(held.end.exit or 0))
        return
    held.mark = symbol.restatements.scaled(bar, held.stands_ms).close
    if last:
        account.close(symbol, END_OF_DATA, bar.ts_close_ms, held.mark - held.paper.side * held.rules.slippage(held.mark))
