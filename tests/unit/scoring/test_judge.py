"""Each way in which a signal ends, with the numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from schemas import CancelReason, ExitReason, Signal, SignalOutcome
from services.scoring.fill_rules import FillRules
from services.scoring.judge import KEPT_BARS
from tests.unit.scoring.build import FREE, MINUTE, Move, at, bar, bars, cancel, dividend, feed, judge, only, signal, split

FLAT = "100 100.2 99.8 100"
TEN_BPS = FillRules(cost_bps=10.0, slippage_bps=0.0)
SLIPPING = FillRules(cost_bps=2.0, slippage_bps=10.0)
JUMPS = FillRules(cost_bps=0.0, slippage_bps=0.0, max_jump=1.8)
FLAT_HALF = "50 50.1 49.9 50"


@dataclass(frozen=True)
class Case:
    """What is fed, and how the first signal ends; times in minutes after START."""

    says: str
    moves: Sequence[Move]
    reason: ExitReason
    exit_at: float
    entry_at: float | None = None
    entry: str | None = None
    exit: str | None = None
    net: float | None = None
    best: float | None = None
    worst: float | None = None
    held: int = 0
    costs: FillRules = field(default=FREE)


BUY, SELL = signal("buy"), signal("sell")
LIMIT_BUY = signal("buy", entry_type="limit", entry="99.80")
LIMIT_SELL = signal("sell", entry_type="limit", entry="100.20")
LONG_VALID: dict[str, Any] = {"valid_until_ms": at(3)}

CASES = [
    Case(
        "target first: 100 to 102",
        [BUY, *bars(FLAT, "100 102.5 99.5 101")],
        ExitReason.TARGET,
        exit_at=2,
        entry_at=0,
        entry="100.00",
        exit="102.00",
        net=0.02,
        best=0.02,
        worst=-0.002,  # the bar that ends it counts as far as the target: its low may have come after
        held=2,
    ),
    Case(
        "stop first: 100 to 99",
        [BUY, *bars(FLAT, "100 100.4 98.7 100.2")],
        ExitReason.STOP,
        exit_at=2,
        entry_at=0,
        entry="100.00",
        exit="99.00",
        net=-0.01,
        best=0.002,
        worst=-0.01,
        held=2,
    ),
    Case(
        "both levels inside one bar count as the stop",
        [BUY, *bars("100 102.5 98.5 101")],
        ExitReason.STOP,
        exit_at=1,
        entry_at=0,
        entry="100.00",
        exit="99.00",
        net=-0.01,
        best=0.0,
        worst=-0.01,
        held=1,
    ),
    Case(
        "a gap through the stop is filled at the open beyond it",
        [BUY, *bars(FLAT, "97.5 103 97 101")],
        ExitReason.STOP,
        exit_at=1,
        entry_at=0,
        entry="100.00",
        exit="97.50",
        net=-0.025,
        best=0.002,
        worst=-0.025,
        held=1,
    ),
    Case(
        "a gap through the target is filled at the open beyond it",
        [BUY, *bars(FLAT, "103 103.5 98 101")],
        ExitReason.TARGET,
        exit_at=1,
        entry_at=0,
        entry="100.00",
        exit="103.00",
        net=0.03,
        best=0.03,
        worst=-0.002,
        held=1,
    ),
    Case(
        "the horizon ends it at the close of its last bar",
        [signal(horizon_bars=3), *bars(FLAT, "100 101.5 99.5 101", "101 101.2 100.5 100.9", "100.9 103 98 99")],
        ExitReason.HORIZON,
        exit_at=3,
        entry_at=0,
        entry="100.00",
        exit="100.90",
        net=0.009,
        best=0.015,
        worst=-0.005,
        held=3,
    ),
    Case(
        "where the horizon's last bar is missing, at the next open",
        [signal(horizon_bars=2), bar(0, FLAT), bar(4, "101 103 98 99")],
        ExitReason.HORIZON,
        exit_at=4,
        entry_at=0,
        entry="100.00",
        exit="101.00",
        net=0.01,
        best=0.01,
        worst=-0.002,
        held=1,
    ),
    Case(
        "a halt ends it at the open of the first bar after the cancel",
        [BUY, cancel(BUY, 0.5), *bars(FLAT, "100.5 103 98 101")],
        ExitReason.CANCELLED,
        exit_at=1,
        entry_at=0,
        entry="100.00",
        exit="100.50",
        net=0.005,
        best=0.005,
        worst=-0.002,
        held=1,
    ),
    Case(
        "a halt before the market opened it leaves nothing to end",
        [signal(minute=0, valid_until_ms=at(4)), cancel(signal(minute=0, valid_until_ms=at(4)), 0.5), bar(1, FLAT)],
        ExitReason.CANCELLED,
        exit_at=0.5,
    ),
    Case(
        "a target that was reached before the halt stays reached",
        [BUY, cancel(BUY, 0.5), *bars("100 102 99.9 101")],
        ExitReason.TARGET,
        exit_at=1,
        entry_at=0,
        entry="100.00",
        exit="102.00",
        net=0.02,
        best=0.02,
        worst=0.0,
        held=1,
    ),
    Case(
        "a split's cancel ends it as a halt does",
        [BUY, cancel(BUY, 0.5, CancelReason.SPLIT), *bars(FLAT, "100.5 103 98 101")],
        ExitReason.CANCELLED,
        exit_at=1,
        entry_at=0,
        entry="100.00",
        exit="100.50",
        net=0.005,
        best=0.005,
        worst=-0.002,
        held=1,
    ),
    Case(
        "a newer signal that wants the other side ends it at its own first open",
        [BUY, *bars(FLAT), signal("sell", minute=1), bar(1, "100.3 103 98 100")],
        ExitReason.SUPERSEDED,
        exit_at=1,
        entry_at=0,
        entry="100.00",
        exit="100.30",
        net=0.003,
        best=0.003,
        worst=-0.002,
        held=1,
    ),
    Case(
        "so does one that says exit",
        [BUY, *bars(FLAT), signal("exit", minute=1), bar(1, "100.3 103 98 100")],
        ExitReason.SUPERSEDED,
        exit_at=1,
        entry_at=0,
        entry="100.00",
        exit="100.30",
        net=0.003,
        best=0.003,
        worst=-0.002,
        held=1,
    ),
    Case(
        "any newer signal of the lane takes the place of one that is not open yet",
        [signal(minute=0, **LONG_VALID), signal(minute=1), bar(1, FLAT)],
        ExitReason.SUPERSEDED,
        exit_at=1,
    ),
    Case(
        "an open worse than the entry opens nothing",
        [BUY, *bars("100.6 103 98 101")],
        ExitReason.UNFILLED,
        exit_at=0.05,
    ),
    Case(
        "slippage may make the open worse than the entry",
        [BUY, *bars("100.45 103 98 101")],
        ExitReason.UNFILLED,
        exit_at=0.05,
        costs=SLIPPING,
    ),
    Case(
        "while it is valid, the next open may be good enough",
        [signal(**LONG_VALID), *bars("100.6 101 100.4 100.5", "100.4 102 100.3 101")],
        ExitReason.TARGET,
        exit_at=2,
        entry_at=1,
        entry="100.40",
        exit="102.00",
        net=0.01593625,  # 1.6 / 100.4
        best=0.01593625,
        worst=0.0,
        held=1,
    ),
    Case(
        "the bars of its validity are missing",
        [BUY, bar(1, FLAT)],
        ExitReason.UNFILLED,
        exit_at=0.05,
    ),
    Case(
        "a limit that is reached inside the bar is filled there, and what was higher before does not count",
        [LIMIT_BUY, *bars("100.3 102.4 99.7 100.1", "100.1 102 100 101")],
        ExitReason.TARGET,
        exit_at=2,
        entry_at=1,
        entry="99.80",
        exit="102.00",
        net=0.02204409,  # 2.2 / 99.8
        best=0.02204409,
        worst=-0.001002,  # 99.7: a price beyond the limit came after it
        held=2,
    ),
    Case(
        "a limit and the stop beyond it inside one bar",
        [LIMIT_BUY, *bars("100.3 102.4 98.9 100.1")],
        ExitReason.STOP,
        exit_at=1,
        entry_at=1,
        entry="99.80",
        exit="99.00",
        net=-0.00801603,  # -0.8 / 99.8
        best=0.0,
        worst=-0.00801603,
        held=1,
    ),
    Case(
        "a limit, and a close beyond the target: the target came after",
        [LIMIT_BUY, *bars("100.3 102.4 99.7 102.2")],
        ExitReason.TARGET,
        exit_at=1,
        entry_at=1,
        entry="99.80",
        exit="102.00",
        net=0.02204409,
        best=0.02204409,
        worst=0.0,
        held=1,
    ),
    Case(
        "an open better than the limit is filled at the open",
        [LIMIT_BUY, *bars("99.5 101 99.4 100", "100 102 99.9 101")],
        ExitReason.TARGET,
        exit_at=2,
        entry_at=0,
        entry="99.50",
        exit="102.00",
        net=0.02512563,  # 2.5 / 99.5
        best=0.02512563,
        worst=-0.00100503,
        held=2,
    ),
    Case(
        "a limit that is not reached",
        [LIMIT_BUY, *bars("100.3 102.4 99.9 100.1", "99 99 99 99")],
        ExitReason.UNFILLED,
        exit_at=0.05,
    ),
    Case(
        "a short's target",
        [SELL, *bars(FLAT, "100 100.5 97.5 99")],
        ExitReason.TARGET,
        exit_at=2,
        entry_at=0,
        entry="100.00",
        exit="98.00",
        net=0.02,
        best=0.02,
        worst=-0.002,
        held=2,
    ),
    Case(
        "a short's stop, gapped through",
        [SELL, *bars(FLAT, "102 102.5 97.5 99")],
        ExitReason.STOP,
        exit_at=1,
        entry_at=0,
        entry="100.00",
        exit="102.00",
        net=-0.02,
        best=0.002,
        worst=-0.02,
        held=1,
    ),
    Case(
        "a short's limit",
        [LIMIT_SELL, *bars("99.9 100.4 99.6 100", "100 100.1 97.9 98")],
        ExitReason.TARGET,
        exit_at=2,
        entry_at=1,
        entry="100.20",
        exit="98.00",
        net=0.02195609,  # 2.2 / 100.2
        best=0.02195609,
        worst=-0.00199601,
        held=2,
    ),
    Case(
        "costs are paid on each side's price: 10 bps of 100 and of 102",
        [BUY, *bars(FLAT, "100 102.5 99.5 101")],
        ExitReason.TARGET,
        exit_at=2,
        entry_at=0,
        entry="100.00",
        exit="102.00",
        net=0.01798,  # 0.02 - 0.001 * (1 + 1.02)
        best=0.02,
        worst=-0.002,
        held=2,
        costs=TEN_BPS,
    ),
    Case(
        "slippage is paid at the market, in and out: 100.1 in, 99 less 10 bps out, then costs",
        [BUY, *bars(FLAT, "100 100.4 98.7 100.2")],
        ExitReason.STOP,
        exit_at=2,
        entry_at=0,
        entry="100.10",
        exit="98.901",
        net=-0.01237563,  # (98.901 - 100.1 - 0.0002 * 199.001) / 100.1
        best=0.000999,  # 100.2 / 100.1 - 1
        worst=-0.01098901,  # 99 / 100.1 - 1
        held=2,
        costs=SLIPPING,
    ),
    Case(
        "a two for one split while it is open: the second bar's 50.5 are 101 of before",
        [BUY, split(at(1), 2.0), bar(0, FLAT), bar(1, "50.1 51.2 49.9 50.5")],
        ExitReason.TARGET,
        exit_at=2,
        entry_at=0,
        entry="100.00",
        exit="102.00",
        net=0.02,
        best=0.02,
        worst=-0.002,
        held=2,
    ),
    Case(
        "a bar that spans the split is on the old scale as a whole",
        [signal(horizon_bars=2), split(at(0.5), 2.0), bar(0, FLAT), bar(1, "50 50.5 49.9 50.5")],
        ExitReason.HORIZON,
        exit_at=2,
        entry_at=0,
        entry="100.00",
        exit="101.00",
        net=0.01,
        best=0.01,
        worst=-0.002,
        held=2,
    ),
    Case(
        "a dividend of 1 while it is open: it is paid, and the target moves with the price",
        [BUY, dividend(at(1), 1.0), bar(0, FLAT), bar(1, "99.1 101.2 98.9 100.5")],
        ExitReason.TARGET,
        exit_at=2,
        entry_at=0,
        entry="100.00",
        exit="102.00",
        net=0.02,
        best=0.02,
        worst=-0.002,
        held=2,
    ),
    Case(
        "a dividend before a split is paid in the units of its day",
        [signal(horizon_bars=2), dividend(at(1), 1.0), split(at(1), 2.0), bar(0, FLAT), bar(1, "49 49.5 48.9 49.5")],
        ExitReason.HORIZON,
        exit_at=2,
        entry_at=0,
        entry="100.00",
        exit="101.00",
        net=0.01,
        best=0.01,
        worst=-0.002,
        held=2,
    ),
    Case(
        "a correction of a bar while it is open counts in place of the bar",
        [BUY, *bars(FLAT, FLAT), bar(1, "100 102.1 99.8 100", revision=1)],
        ExitReason.TARGET,
        exit_at=2,
        entry_at=0,
        entry="100.00",
        exit="102.00",
        net=0.02,
        best=0.02,
        worst=-0.002,
        held=2,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=[case.says for case in CASES])
def test_a_signal_ends_with_the_numbers_worked_out_by_hand(case: Case) -> None:
    outcome = feed(judge(case.costs), case.moves)[0]
    expected = {
        "exit_reason": case.reason,
        "ts_entry_ms": None if case.entry_at is None else at(case.entry_at),
        "ts_exit_ms": at(case.exit_at),
        "entry": case.entry,
        "exit": case.exit,
        "return_net": case.net,
        "max_favourable": case.best,
        "max_adverse": case.worst,
        "bars_held": case.held,
    }
    assert expected == {name: getattr(outcome, name) for name in expected}


SPLIT_BARS = [bar(0, FLAT), bar(1, "50.1 51.2 49.9 50.5"), bar(2, "50.5 50.7 50.3 50.4"), bar(3, FLAT_HALF), bar(4, FLAT_HALF)]


def unscored(outcome: SignalOutcome) -> tuple[object, ...]:
    return outcome.exit_reason, outcome.unscored_reason, outcome.entry, outcome.exit, outcome.return_net, outcome.ts_exit_ms


@pytest.mark.parametrize("opens", ["50", "100"])  # some vendors write the close before as the open
@pytest.mark.parametrize("order", [BUY, SELL])
@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_a_position_held_over_a_suspected_split_has_no_return_whichever_way_the_price_jumped(
    order: Signal, opens: str, scale: float
) -> None:
    jumped = bar(1, f"{float(opens) * (1 if opens == '100' else scale)} {50 * max(scale, 2)} {50 * min(scale, 2)} {50 * scale}")
    after = f"{50 * scale} {50.1 * scale} {49.9 * scale} {50 * scale}"
    outcome = only(feed(judge(JUMPS), [order, bar(0, FLAT), jumped, *(bar(number, after) for number in (2, 3, 4))]))
    assert unscored(outcome) == (ExitReason.CANCELLED, "suspected_split", "100.00", None, None, at(1))


def test_a_position_held_over_a_suspected_split_waits_for_an_explanation_until_its_horizon_ends() -> None:
    one = judge(JUMPS)
    assert feed(one, [BUY, *SPLIT_BARS[:4]]) == []
    assert one.open_signals == 1
    assert only(feed(one, SPLIT_BARS[4:])).unscored_reason == "suspected_split"


@pytest.mark.parametrize("known", [0, 1, 2, 3, 4])
def test_a_split_that_is_published_while_its_jump_is_suspected_counts_as_one_published_before(known: int) -> None:
    moves: list[Move] = [BUY, *SPLIT_BARS]
    moves.insert(1 + known, split(at(1), 2.0))
    found = only(feed(judge(JUMPS), moves))
    assert (found.exit_reason, found.exit, found.unscored_reason) == (ExitReason.TARGET, "102.00", None)


def test_a_correction_that_takes_the_jump_back_ends_the_suspicion() -> None:
    corrected = bar(1, "100 102.5 99.5 101", revision=1)
    found = only(feed(judge(JUMPS), [BUY, *bars(FLAT, "50 50.1 49.9 50"), corrected]))
    assert (found.exit_reason, found.return_net) == (ExitReason.TARGET, 0.02)


def test_a_suspected_split_concerns_no_position_that_ended_before_or_was_opened_after() -> None:
    before = only(feed(judge(JUMPS), [BUY, *bars("100 102.5 99.5 101", "50 50.1 49.9 50")]))
    assert (before.exit_reason, before.unscored_reason) == (ExitReason.TARGET, None)
    late = signal("buy", 2, entry="50.25", stop="49.50", target="51.00")
    after = only(feed(judge(JUMPS), [*bars(FLAT, "50 50.1 49.9 50"), late, bar(2, "50 51.2 49.9 51")]))
    assert (after.exit_reason, after.unscored_reason) == (ExitReason.TARGET, None)


def test_a_jump_within_the_limit_is_a_move_of_the_market() -> None:
    found = only(feed(judge(JUMPS), [SELL, *bars(FLAT, "60 60.1 59.9 60")]))
    assert (found.exit_reason, found.return_net) == (ExitReason.TARGET, 0.4)


def test_a_judge_that_was_stored_while_a_jump_is_suspected_goes_on_as_before() -> None:
    one, other = judge(JUMPS), judge(JUMPS)
    assert feed(one, [BUY, *SPLIT_BARS[:3]]) == []
    other.load(one.dump())
    assert feed(other, SPLIT_BARS[3:]) == feed(one, SPLIT_BARS[3:])


def test_an_outcome_says_what_its_signal_was() -> None:
    said = signal("sell", mode="deep", source="llm", vision="stale", conviction=0.71)
    outcome = only(feed(judge(), [said, *bars("100 101.2 97 98")]))
    for name in ("run_mode", "signal_id", "symbol", "interval", "mode", "action", "source", "vision", "conviction"):
        assert getattr(said, name) == getattr(outcome, name)


@pytest.mark.parametrize("action", ["hold", "abstain", "exit"])
def test_only_buy_and_sell_have_an_outcome(action: str) -> None:
    assert feed(judge(), [signal(action), *bars(FLAT, FLAT, FLAT, FLAT, FLAT, FLAT)]) == []


def test_hold_leaves_everything_standing() -> None:
    outcome = only(feed(judge(), [signal(), bar(0, FLAT), signal("hold", minute=1), bar(1, "100 102 99.9 101")]))
    assert outcome.exit_reason == ExitReason.TARGET


def test_the_same_view_again_leaves_what_is_open_to_its_own_end() -> None:
    first, second = feed(judge(), [signal(), *bars(FLAT), signal(minute=1), bar(1, "100.2 102 99.9 101")])
    assert [first.exit_reason, second.exit_reason] == [ExitReason.TARGET, ExitReason.TARGET]
    assert [first.entry, second.entry] == ["100.00", "100.20"]


@pytest.mark.parametrize("other", [{"mode": "deep"}, {"interval": "5m"}])
def test_a_signal_of_another_lane_ends_nothing(other: dict[str, Any]) -> None:
    moves = [signal(), *bars(FLAT), signal("sell", minute=1, **other), bar(1, FLAT), bar(2, "100 102 100 101")]
    assert feed(judge(), moves)[0].exit_reason == ExitReason.TARGET


def test_a_cancel_of_a_superseded_signal_says_nothing_new() -> None:
    first = signal()
    moves = [first, *bars(FLAT), signal(minute=1), cancel(first, 1.01, CancelReason.SUPERSEDED), bar(1, "100 102 99.9 101")]
    assert feed(judge(), moves)[0].exit_reason == ExitReason.TARGET


def test_a_cancel_may_come_before_its_signal() -> None:
    said = signal()
    moves = [cancel(said, 0.5), said, *bars(FLAT, "100.5 103 98 101")]
    assert only(feed(judge(), moves)).exit_reason == ExitReason.CANCELLED


def test_a_cancel_of_what_has_ended_changes_nothing() -> None:
    said = signal()
    one = judge()
    assert only(feed(one, [said, *bars("100 102 99.9 101")])).exit_reason == ExitReason.TARGET
    assert feed(one, [cancel(said, 0.5), said, bar(1, FLAT)]) == []


def test_the_first_body_of_an_id_counts() -> None:
    said = signal()
    again = signal(signal_id=said.signal_id, target="101.00")
    assert only(feed(judge(), [said, again, *bars("100 103 99.9 101")])).exit == "102.00"


def test_bars_that_form_or_come_again_or_out_of_order_change_nothing() -> None:
    moves: list[Move] = [
        signal(),
        bar(0, FLAT),
        bar(0, "100 103 98 100"),
        bar(1, "100 103 98 100", closed=False),
        bar(2, FLAT),
        bar(1, "100 103 98 100"),
    ]
    one = judge()
    assert feed(one, moves) == []
    assert one.open_signals == 1


def test_a_signal_read_after_its_bars_ends_as_one_read_before_them() -> None:
    moves: list[Move] = [signal(), *bars(*[FLAT] * 4)]
    late: list[Move] = [*bars(*[FLAT] * 4), signal(), bar(4, "100 101 98 99")]
    assert feed(judge(), [*moves, bar(4, "100 101 98 99")]) == feed(judge(), late)


@pytest.mark.parametrize("ending", [cancel(BUY, 0.5), signal("sell", minute=1), signal("exit", minute=1)])
def test_what_ends_a_signal_counts_from_its_own_time_also_when_it_is_read_after_its_bars(ending: Move) -> None:
    ended = "100.3 101 99.8 100"
    in_time: list[Move] = [BUY, ending, *bars(FLAT, ended, FLAT)]
    late: list[Move] = [BUY, *bars(FLAT, ended, FLAT), ending]
    outcome = feed(judge(), late)[0]
    assert at(1) == outcome.ts_exit_ms
    assert feed(judge(), in_time)[0] == outcome


def test_a_signal_whose_bars_are_gone_is_told_and_gets_no_outcome() -> None:
    one = judge()
    feed(one, bars(*[FLAT] * KEPT_BARS))
    assert not one.is_too_late(signal())
    feed(one, [bar(KEPT_BARS, FLAT)])
    assert one.is_too_late(signal())
    assert not one.is_too_late(signal(minute=1))
    assert feed(one, [signal()]) == []


def test_a_signal_that_cannot_be_judged_is_refused_by_what_it_lacks() -> None:
    with pytest.raises(ValueError, match="a signal to buy needs stop, target to be judged"):
        judge().signal(signal(stop=None, target=None))


def test_validity_is_market_time_so_a_daily_signal_is_filled_at_the_next_session() -> None:
    friday_close, monday_open, monday_close = 1_720_209_600_000, 1_720_445_400_000, 1_720_468_800_000  # 2024-07-05 to 08, XNYS
    said = signal(
        interval="1d", as_of_ms=friday_close, valid_until_ms=friday_close + 72 * MINUTE, horizon_bars=1, horizon_end_ms=monday_close
    )
    monday = bar(0, FLAT, interval="1d", ts_open_ms=monday_open, ts_close_ms=monday_close)
    outcome = only(feed(judge(calendar="XNYS"), [said, monday]))
    assert (ExitReason.HORIZON, monday_open, monday_close) == (outcome.exit_reason, outcome.ts_entry_ms, outcome.ts_exit_ms)


def test_a_bar_missing_inside_the_session_uses_the_validity_up() -> None:
    monday_open = 1_720_445_400_000
    said = signal(as_of_ms=monday_open, horizon_bars=5)
    later = bar(0, FLAT, ts_open_ms=monday_open + MINUTE, ts_close_ms=monday_open + 2 * MINUTE)
    assert only(feed(judge(calendar="XNYS"), [said, later])).exit_reason == ExitReason.UNFILLED


def _entered(outcomes: Sequence[SignalOutcome]) -> int | None:
    return only(outcomes).ts_entry_ms


@pytest.mark.parametrize(
    ("late_ms", "minute"),
    [(0, 0), (2_000, 0), (10_000, 1), (59_000, 1), (30 * 365 * 86_400_000, 0)],
    ids=["at once", "within a twentieth of the bar", "a slow feed", "inside the bar", "recorded data, whose clocks are apart"],
)
def test_no_position_is_opened_at_a_price_from_well_before_the_decision(late_ms: int, minute: int) -> None:
    plain = signal()
    market = plain.as_of.market.model_copy(update={"ts_ms": at(0) + late_ms})
    said = plain.model_copy(
        update={
            "as_of": plain.as_of.model_copy(update={"market": market}),
            "ts_decided_ms": plain.ts_decided_ms + late_ms,
            "valid_until_ms": plain.valid_until_ms + late_ms,
        }
    )
    assert at(minute) == _entered(feed(judge(), [said, *bars(FLAT, FLAT, FLAT, FLAT, FLAT)]))


def test_an_as_of_that_names_a_revision_of_an_older_bar_opens_nothing_in_the_past() -> None:
    plain = signal(minute=3)
    market = plain.as_of.market.model_copy(update={"ts_event_ms": at(1)})
    said = plain.model_copy(update={"as_of": plain.as_of.model_copy(update={"market": market})})
    assert at(3) == _entered(feed(judge(), [*bars(*[FLAT] * 8), said]))
