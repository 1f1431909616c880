"""One position a symbol: what opens, keeps and closes it, how large it is, and that the account adds up."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby, pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.habits import HABITS, WALKS, played
from schemas import Action, ExitReason, InstrumentEvent, Order, RunMode, SignalOutcome
from services.scoring.fill_rules import FillRules
from services.scoring.paper_position import Bar, PaperPosition
from services.scoring.report.net_instructions import ChangeKind, Instruction, NetChange, NetOrder
from services.scoring.report.net_positions import END_OF_DATA, Fill, NetAccount, play
from services.scoring.report.net_report import net_account
from services.scoring.report.position_sizing import Sizing
from services.scoring.report.prices import Prices
from services.scoring.report.report_input import ReportInput
from services.scoring.report.trades import trades_of
from services.scoring.restatements import Restatements
from tests.unit.scoring.report import market

MINUTE = 60_000
CENT = 0.01
CAPITAL = 1_000_000
A, B, C = "AAA.XNAS", "BBB.XNAS", "CCC.XNAS"
EQUAL = Sizing()
FREE = FillRules(0.0, 0.0)
PAID = FillRules(5.0, 2.0, fee=0.01)


def bars(*prices: str) -> list[Bar]:
    """Return minute bars; each opens a second after the one before has closed."""
    made = []
    for number, one in enumerate(prices):
        opened, high, low, close = map(float, one.split())
        made.append(Bar(number * MINUTE + 1_000, (number + 1) * MINUTE, opened, high, low, close, 0))
    return made


def flat(*closes: float) -> list[Bar]:
    """Return minute bars that open where the one before closed, and never go beyond both."""
    return bars(*(f"{before} {max(before, close)} {min(before, close)} {close}" for before, close in pairwise(closes)))


def order(
    minute: int = 0, side: str = "buy", *, conviction: float = 0.5, horizon: int = 5, rules: FillRules = FREE, **levels: Any
) -> NetOrder:
    """Return a market order that stands at `minute`: entry, stop and target far away unless given."""
    buys = side == "buy"
    low, high = "1.00", "100000.00"
    made = Order.model_validate(
        {
            "entry_type": "market",
            "ref_price": "100.00",
            "entry": high if buys else low,
            "stop": low if buys else high,
            "target": high if buys else low,
            "horizon_bars": horizon,
            "ts_stands_ms": minute * MINUTE,
            "ts_from_ms": minute * MINUTE,
            "ts_until_ms": (minute + 3) * MINUTE,
            "cost_bps": rules.cost_bps,
            "slippage_bps": rules.slippage_bps,
            "fee": rules.fee,
        }
        | levels
    )
    outcome = SignalOutcome(
        schema_version=1,
        run_mode=RunMode.DEMO,
        signal_id=uuid.uuid5(uuid.NAMESPACE_OID, f"{minute} {side} {conviction} {levels}"),
        symbol=A,
        interval="1m",
        mode="fast",
        action=Action(side),
        source="llm",
        vision="absent",
        conviction=conviction,
        exit_reason=ExitReason.UNFILLED,
        ts_exit_ms=0,
        bars_held=0,
    )
    return NetOrder(PaperPosition.of_order(outcome, made, (minute + horizon) * MINUTE), rules)


def follow(moves: Sequence[Bar], *instructions: Instruction, sizing: Sizing = EQUAL, events: Sequence[InstrumentEvent] = ()) -> NetAccount:
    return play({A: instructions}, {A: moves}, {A: Restatements(events)}, sizing, 0)


def reasons(account: NetAccount) -> list[tuple[int, str, int]]:
    """Return the fills as side, reason and minute."""
    return [(fill.side, fill.reason, fill.ts_ms // MINUTE) for fill in account.fills]


def test_a_signal_opens_one_position_that_ends_with_its_horizon() -> None:
    account = follow(flat(100, 100, 101, 102, 103, 104), order(horizon=3))
    assert reasons(account) == [(1, "signal", 0), (-1, "horizon", 3)]
    assert account.equity[-1] == pytest.approx(1.02)


def test_a_newer_signal_to_the_same_side_moves_levels_and_horizon_and_not_the_size() -> None:
    first, second = order(horizon=2), order(1, horizon=4, stop="99.50")
    account = follow(flat(100, 100, 101, 102, 103, 99, 99), first, second)
    assert reasons(account) == [(1, "signal", 0), (-1, "stop", 5)]
    assert [fill.units for fill in account.fills] == [0.01, 0.01]
    assert account.fills[1].price == 99.50


def test_the_other_side_closes_at_the_next_open_and_opens_there() -> None:
    account = follow(flat(100, 100, 102, 101, 101), order(), order(2, "sell", horizon=2))
    assert reasons(account) == [(1, "signal", 0), (-1, "superseded", 2), (-1, "signal", 2), (1, "horizon", 4)]


def test_exit_closes_at_the_next_open_and_opens_nothing() -> None:
    account = follow(flat(100, 100, 102, 101, 101), order(), NetChange(ChangeKind.EXIT, 2 * MINUTE))
    assert reasons(account) == [(1, "signal", 0), (-1, "superseded", 2)]


def test_exit_drops_an_order_that_waits() -> None:
    waits = order(entry="99.00", entry_type="limit", horizon=9)
    assert reasons(follow(flat(100, 100, 98, 98), waits)) == [(1, "signal", 2), (-1, END_OF_DATA, 3)]
    assert follow(flat(100, 100, 98, 98), waits_again(), NetChange(ChangeKind.EXIT, MINUTE)).fills == ()


def waits_again() -> NetOrder:
    return order(entry="99.00", entry_type="limit", horizon=9)


def test_hold_keeps_the_position_on_to_its_own_horizon_and_never_shortens_it() -> None:
    prices = flat(100, 100, 101, 102, 103, 104, 105)
    longer, shorter = NetChange(ChangeKind.HOLD, MINUTE, 5 * MINUTE), NetChange(ChangeKind.HOLD, MINUTE, 2 * MINUTE)
    assert reasons(follow(prices, order(horizon=3), longer))[-1] == (-1, "horizon", 5)
    assert reasons(follow(prices, order(horizon=3), shorter))[-1] == (-1, "horizon", 3)


def test_hold_opens_nothing() -> None:
    assert follow(flat(100, 101), NetChange(ChangeKind.HOLD, 0, 5 * MINUTE)).fills == ()


def test_a_cancel_withdraws_the_signal_that_it_names_and_no_other() -> None:
    prices, first = flat(100, 100, 101, 102, 103, 104), order(horizon=4)
    mine = NetChange(ChangeKind.CANCEL, 2 * MINUTE, signal_id=first.paper.signal_id)
    other = NetChange(ChangeKind.CANCEL, 2 * MINUTE, signal_id="another")
    assert reasons(follow(prices, first, mine))[-1] == (-1, "cancelled", 2)
    assert reasons(follow(prices, order(horizon=4), other))[-1] == (-1, "horizon", 4)


def test_of_several_signals_before_one_bar_the_last_one_holds() -> None:
    account = follow(flat(100, 100, 101, 102, 103), order(horizon=9), order(2, "sell"), order(2, conviction=0.9, horizon=2))
    assert reasons(account) == [(1, "signal", 0), (-1, "horizon", 4)], "sell and buy at once: the one with more conviction is the last"


def test_a_position_that_outlasts_the_data_is_closed_at_the_last_close_and_pays_for_it() -> None:
    account = follow(flat(100, 100, 110), order(rules=PAID, horizon=9))
    assert reasons(account)[-1] == (-1, END_OF_DATA, 2)
    assert account.fills[-1].price == pytest.approx(110 * (1 - 2e-4))
    assert account.fills[-1].cost > 0


def test_a_split_changes_the_unit_and_not_the_worth() -> None:
    split = InstrumentEvent(schema_version=1, run_mode=RunMode.DEMO, symbol=A, event="split", ratio=4.0, effective_ms=2 * MINUTE)
    moves = [
        *flat(100, 100, 100),
        *(bar._replace(ts_open_ms=bar.ts_open_ms + 2 * MINUTE, ts_close_ms=bar.ts_close_ms + 2 * MINUTE) for bar in flat(25, 25, 26)),
    ]
    account = follow(moves, order(horizon=4), events=[split])
    assert account.equity[-1] == pytest.approx(1.04)
    renewed = follow(moves, order(horizon=3), order(2, horizon=2, stop="25.90"), events=[split])
    assert reasons(renewed)[-1][1] == "stop", "the newer stop is 103.60 on the position's own scale"


def test_a_split_that_nobody_published_is_no_loss_of_the_account() -> None:
    closes = [100.0, 100.0, 100.0, 10.0, 10.1, 10.1, 10.1]
    inside = market.hourly("AAPL.XNAS", closes)
    at_open = [replace(one, open=10.0, high=10.0, low=10.0) if number == 3 else one for number, one in enumerate(inside)]
    one = market.outcome(entry_ms=market.START_MS, exit_ms=market.START_MS + 5 * market.HOUR_MS, bars_held=5, entry=100.0)
    for moves in (inside, at_open):
        asked = ReportInput("t", [one], {"AAPL.XNAS": moves}, 0.0, {}, max_jump=1.8)
        end_ms = moves[-1].ts_close_ms
        account = net_account(asked, [one], Prices(asked.bars, (), asked.max_jump), 0, end_ms)
        assert account is not None
        assert account.equity[-1] == pytest.approx(1.01, abs=5e-4)
        assert min(account.equity) > 0.999


def test_the_higher_conviction_goes_first_where_the_caps_leave_room_for_one() -> None:
    moves = flat(100, 100, 101)
    both = {A: [order(conviction=0.4)], B: [order(conviction=0.6)]}
    account = play(both, {A: moves, B: moves}, {}, Sizing("risk", risk_per_position=1.0, max_gross=1.0), 0)
    assert [fill.symbol for fill in account.fills if fill.opens] == [B]
    assert account.no_room == 1


def test_risk_sizing_loses_its_share_at_the_stop() -> None:
    account = follow(flat(100, 100, 95, 95), order(stop="98.00"), sizing=Sizing("risk", risk_per_position=0.01))
    assert account.equity[-1] == pytest.approx(0.99)
    assert account.trades[0].risked == pytest.approx(0.01)


def test_equal_weights_share_the_capital_among_all_symbols_and_gains_are_reinvested() -> None:
    moves = flat(100, 100, 110, 110, 121)
    twice = [order(horizon=2), order(2, horizon=2)]
    account = play({A: twice, B: []}, {A: moves, B: moves}, {}, Sizing(), 0)
    assert account.equity[-1] == pytest.approx((1 + 0.1 / 2) * (1 + 0.1 / 2))


@given(
    sizing=st.builds(Sizing, st.sampled_from(["equal", "risk"]), st.floats(0.001, 1), st.floats(0.1, 5), st.floats(0.1, 5)),
    order=st.fixed_dictionaries({"price": st.floats(0.01, 10_000), "cost": st.floats(0, 0.05), "symbols": st.integers(1, 20)}),
    distance=st.floats(0, 0.9),
    equity=st.floats(0, 10),
    gross=st.floats(0, 50),
)
def test_no_opening_exceeds_a_cap(sizing: Sizing, order: dict[str, Any], distance: float, equity: float, gross: float) -> None:
    units = sizing.units(**order, stop=order["price"] * (1 - distance), equity=equity, gross=gross)
    worth = units * order["price"]
    left = equity - worth * order["cost"]
    assert units >= 0
    assert worth <= sizing.max_symbol * left * (1 + 1e-9)
    assert units == 0 or worth + gross <= sizing.max_gross * left * (1 + 1e-9)


Orders = st.lists(
    st.tuples(
        st.sampled_from(["buy", "sell", "exit", "hold"]),
        st.integers(0, 25),
        st.floats(0, 1),
        st.integers(1, 8),
        st.sampled_from(["market", "limit"]),
        st.integers(1, 6),
        st.integers(1, 6),
    ),
    max_size=12,
)
Moves = st.lists(st.integers(-4, 4), min_size=8, max_size=30)


def made(drawn: Sequence[tuple[Any, ...]], rules: FillRules) -> list[Instruction]:
    found: list[Instruction] = []
    for kind, minute, conviction, horizon, entry_type, stop, target in drawn:
        if kind in {"exit", "hold"}:
            found.append(NetChange(ChangeKind(kind), minute * MINUTE, (minute + horizon) * MINUTE))
            continue
        side = 1 if kind == "buy" else -1
        levels = {
            "entry": 100 - side if entry_type == "limit" else 100 + 2 * side,
            "stop": 100 - side * (2 + stop),
            "target": 100 + side * (2 + target),
        }
        prices = {name: f"{price:.2f}" for name, price in levels.items()}
        found.append(order(minute, kind, conviction=conviction, horizon=horizon, rules=rules, entry_type=entry_type, **prices))
    return found


def walk(moves: Sequence[int]) -> list[Bar]:
    """Return bars about 100 that gap and reach beyond open and close."""
    found, close = [], 100.0
    for move in moves:
        opened = close + (0.5 if move % 3 == 0 else 0.0)
        close = min(115.0, max(85.0, opened + move))
        found.append(f"{opened} {max(opened, close) + 0.7} {min(opened, close) - 0.7} {close}")
    return bars(*found)


@settings(max_examples=60)
@given(
    drawn=st.tuples(Orders, Orders, Orders),
    moves=st.tuples(Moves, Moves, Moves),
    sizing=st.builds(Sizing, st.sampled_from(["equal", "risk"]), st.floats(0.01, 1), st.floats(0.2, 3), st.floats(0.2, 2)),
    shuffle=st.randoms(use_true_random=False),
)
def test_the_account_adds_up_to_the_cent_and_no_symbol_has_two_positions(drawn: Any, moves: Any, sizing: Sizing, shuffle: Any) -> None:
    market = {symbol: walk(of_symbol) for symbol, of_symbol in zip((A, B, C), moves, strict=True)}

    def followed(*, shuffled: bool = False) -> NetAccount:
        instructions = {symbol: made(of_symbol, PAID) for symbol, of_symbol in zip((A, B, C), drawn, strict=True)}
        if shuffled:
            for of_symbol in instructions.values():
                shuffle.shuffle(of_symbol)
            instructions = dict(reversed(instructions.items()))
        return play(instructions, market, {}, sizing, 0)

    account = followed()
    assert followed(shuffled=True) == account, "the order in which signals are handed over does not matter"
    assert account.equity[-1] * CAPITAL == pytest.approx(CAPITAL * (1 + cash(account.fills)), abs=CENT / 2)
    assert account.equity[-1] * CAPITAL == pytest.approx(CAPITAL * (1 + sum(one.made for one in account.trades)), abs=CENT / 2)
    for at_ms, equity in zip(account.at_ms, account.equity, strict=True):
        until = [fill for fill in account.fills if fill.ts_ms <= at_ms]
        worth = 1 + cash(until) + sum(holding(until, symbol) * close_at(of_symbol, at_ms) for symbol, of_symbol in market.items())
        assert equity * CAPITAL == pytest.approx(CAPITAL * worth, abs=CENT / 2), "balance and holdings, from the fills alone"
    for symbol in market:
        own = [fill for fill in account.fills if fill.symbol == symbol]
        for opening, closing in zip(own[::2], own[1::2], strict=True):
            assert (opening.opens, closing.opens) == (True, False)
            assert (opening.side, opening.units) == (-closing.side, closing.units)


def cash(fills: Sequence[Fill]) -> float:
    return sum(-fill.side * fill.worth - fill.cost for fill in fills)


def holding(fills: Sequence[Fill], symbol: str) -> float:
    return sum(fill.side * fill.units for fill in fills if fill.symbol == symbol)


def close_at(of_symbol: Sequence[Bar], at_ms: int) -> float:
    return [bar for bar in of_symbol if bar.ts_close_ms <= at_ms][-1].close if of_symbol[0].ts_close_ms <= at_ms else 100.0


@settings(max_examples=40)
@given(drawn=st.tuples(Orders, Orders), moves=st.tuples(Moves, Moves), max_gross=st.floats(0.2, 1))
def test_bought_positions_alone_never_exceed_a_cap_that_borrows_nothing(drawn: Any, moves: Any, max_gross: float) -> None:
    buys = [[one for one in of_symbol if one[0] != "sell"] for of_symbol in drawn]
    market = {symbol: walk(of_symbol) for symbol, of_symbol in zip((A, B), moves, strict=True)}
    account = play(
        {symbol: made(of_symbol, PAID) for symbol, of_symbol in zip((A, B), buys, strict=True)},
        market,
        {},
        Sizing("risk", 1.0, max_gross),
        0,
    )
    assert max(account.gross) <= 1 + 1e-9
    for _, at_once in groupby(account.fills, key=lambda fill: fill.ts_ms):
        assert sum(fill.side * fill.worth for fill in at_once) <= max_gross * max(account.equity) + 1e-9


def test_signals_that_never_overlap_make_what_the_judge_says_they_made() -> None:
    habit = replace(HABITS["mixed"], every=13)
    report_input = played(habit, WALKS["volatile"], seed=5, bars=600)
    outcomes = report_input.outcomes
    trades = trades_of(outcomes)
    end_ms = max(bar.ts_close_ms for of_symbol in report_input.bars.values() for bar in of_symbol)
    account = net_account(report_input, outcomes, Prices(report_input.bars, ()), 0, end_ms)
    assert account is not None
    assert len(account.trades) == len(trades) > 30
    by_moment = {(one.symbol, one.ts_entry_ms, one.ts_exit_ms): one for one in trades.outcomes}
    for trade in account.trades:
        judged = by_moment[trade.symbol, trade.entry_ms, trade.exit_ms]
        assert trade.made / trade.units / float(judged.entry or 0) == pytest.approx(judged.return_net, abs=1e-7)
