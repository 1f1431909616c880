"""The guard's rules and the halt state, each on its own."""

from __future__ import annotations

import pytest

from schemas import Action, Control, HaltState, MarketFeatures, RunMode, Topic
from services.core.bus.memory import MemoryBus
from services.core.calendar import SessionCalendar
from services.core.clock import VirtualClock
from services.core.metrics import REGISTRY
from services.core.topic_admin import ensure_topics
from services.fusion.decide.control import UNREADABLE_MS, ControlState, ControlTable
from services.fusion.decide.guard import Guard
from services.fusion.deliver.acknowledgements import SkewMeter
from services.fusion.state.book import Book
from tests.unit.fusion import build
from tests.unit.fusion.build import MINUTE, START, SYMBOL, bar, bar_at, instrument
from tests.unit.fusion.desk import NOW, Desk

ETH = "ETH-USD.CBSE"


def guard(**fusion: object) -> Guard:
    return Guard(build.settings(**fusion).fusion)


def rule_of(one: Guard, action: Action, at_ms: int = START, now_ms: int = NOW, symbol: str = SYMBOL) -> str | None:
    found = one.on_action(symbol, action, at_ms, now_ms)
    return None if found is None else found.rule


def book(*bars: MarketFeatures) -> Book:
    held = Book(instrument(), build.settings().fusion, SessionCalendar.of("24x7"))
    for one in bars:
        held.fold_market(one)
    return held


@pytest.mark.parametrize(
    ("rule", "bars", "lag_ms"),
    [
        (None, [bar(slot) for slot in range(5)], 0),
        ("min_bars", [bar(0), bar(1)], 0),
        ("max_gap_bars", [bar(0), bar(1), bar(11)], 0),
        (None, [bar(0), bar(1), bar(10)], 0),
        ("suspected_split", [bar(0), bar(1), bar(2, 181.0), bar(3, 181.0)], 0),
        ("suspected_split", [bar(0), bar(1), bar(2, 55.0), bar(3, 55.0)], 0),
        ("suspected_split", [bar(0), bar(1, 181.0), bar(2, 181.0), bar(3, 181.0), bar(4, 181.0)], 0),
        (None, [bar(0), bar(1), bar(2, 179.0)], 0),
        ("event_lag", [bar(0), bar(1), bar(2)], 1_001),
        (None, [bar(0), bar(1), bar(2)], 1_000),
        ("no_atr", [bar(0), bar(1), bar_at(START + 2 * MINUTE, atr=None)], 0),
        ("no_atr", [bar(0), bar(1), bar_at(START + 2 * MINUTE, atr=0.0)], 0),
    ],
)
def test_rules_on_the_book(rule: str | None, bars: list[MarketFeatures], lag_ms: int) -> None:
    block = guard(max_event_lag_ms=1_000, max_gap_bars=8).on_book(book(*bars), "1m", lag_ms)
    assert (block.rule if block else None) == rule


JUMPED = [bar(slot, 400.0 if slot < 30 else 100.0) for slot in range(60)]
"""An unadjusted split of 4:1, long enough ago that the last `min_bars` bars show nothing of it."""


def suspicion(held: Book, accepted_ms: int = 0) -> str | None:
    rejection = guard().on_book(held, "1m", 0, accepted_ms)
    return None if rejection is None else rejection.rule


def test_an_unadjusted_split_blocks_for_as_long_as_its_jump_is_among_the_bars() -> None:
    assert suspicion(book(*JUMPED)) == "suspected_split"
    settings = build.settings(window_bars=16, epoch_slots=8)
    aged = Book(instrument(), settings.fusion, SessionCalendar.of("24x7"))
    for one in [*JUMPED, *(bar(slot) for slot in range(60, 64))]:
        aged.fold_market(one)
    assert len(aged.bars["1m"]) == 64, "more bars are held than any prompt may show"
    assert suspicion(aged) is None


def test_the_jump_in_a_slower_interval_blocks_the_faster_one_too() -> None:
    held = Book(instrument(), build.settings(intervals=["1m", "5m"]).fusion, SessionCalendar.of("24x7"))
    for slot in range(20):
        held.fold_market(bar(slot))
    for slot, price in enumerate((400.0, 400.0, 100.0, 100.0)):
        held.fold_market(bar(slot, price, interval="5m"))
    assert suspicion(held) == "suspected_split"


def test_a_split_event_ends_the_suspicion() -> None:
    held = book(*JUMPED)
    held.add_restatement(build.split(START + 30 * MINUTE, 4.0))
    assert suspicion(held) is None


def test_revisions_end_the_suspicion_once_the_last_of_them_has_come() -> None:
    held = book(*JUMPED)
    for slot in range(29, -1, -1):
        assert suspicion(held) in {"suspected_split", "no_atr"}
        held.fold_market(bar(slot, 100.0, revision=1))
    held.fold_market(bar(59, revision=1))
    held.fold_market(bar(60))
    assert suspicion(held) is None


def test_an_operators_resume_of_the_symbol_accepts_the_jumps_before_it_and_no_later_one() -> None:
    state = ControlState(RunMode.SHADOW)
    word = Control(
        schema_version=1,
        run_mode=RunMode.SHADOW,
        scope=SYMBOL,
        state=HaltState.ACTIVE,
        reason="merger",
        actor="test",
        ts_ms=START + 60 * MINUTE,
    )
    assert state.resumed_ms(SYMBOL) == 0
    state.apply(word.model_copy(update={"scope": "global"}))
    assert state.resumed_ms(SYMBOL) == 0, "resuming everything says nothing of one symbol's price"
    state.apply(word)
    held = book(*JUMPED)
    assert suspicion(held, state.resumed_ms(SYMBOL)) is None
    held.fold_market(bar(60, 25.0))
    assert suspicion(held, state.resumed_ms(SYMBOL)) == "suspected_split"


def test_an_average_range_above_every_range_holds_a_jump_that_is_gone_from_the_bars() -> None:
    calm = [bar(slot) for slot in range(40)]
    held = book(*calm, bar_at(START + 40 * MINUTE, atr=18.0))
    assert suspicion(held) == "suspected_split"
    held.fold_market(bar(41))
    assert suspicion(held) is None


@pytest.mark.parametrize(("skew_ms", "blocked"), [(0, False), (2_000, False), (2_001, True), (-2_001, True)])
def test_the_rule_on_clocks(skew_ms: int, *, blocked: bool) -> None:
    assert (guard().on_clock(skew_ms) is not None) == blocked


def test_no_cool_down_holds_back_an_entry_on_an_earlier_bar() -> None:
    one = guard(cool_down_ms=0, flip_flop_limit=0)
    one.published(SYMBOL, Action.BUY, START + 390 * MINUTE, NOW)
    assert rule_of(one, Action.BUY, START) is None


def test_entries_of_a_symbol_keep_their_distance_in_event_time() -> None:
    one = guard(cool_down_ms=5 * MINUTE)
    one.published(SYMBOL, Action.BUY, START, NOW)
    assert rule_of(one, Action.BUY, START + 5 * MINUTE - 1) == "cool_down"
    assert rule_of(one, Action.BUY, START + 5 * MINUTE) is None
    assert rule_of(one, Action.EXIT, START) is None
    assert rule_of(one, Action.BUY, START, symbol=ETH) is None
    one.published(SYMBOL, Action.HOLD, START + 5 * MINUTE, NOW)
    assert rule_of(one, Action.BUY, START + 5 * MINUTE) is None
    one.forget({SYMBOL})
    assert rule_of(one, Action.BUY, START) is None


def test_changes_of_side_are_limited_within_a_window() -> None:
    one = guard(flip_flop_limit=2, flip_flop_window_ms=10 * MINUTE)
    for minute, action in enumerate([Action.BUY, Action.SELL, Action.SELL, Action.BUY]):
        assert rule_of(one, action, START + minute * MINUTE) is None
        one.published(SYMBOL, action, START + minute * MINUTE, NOW)
    assert rule_of(one, Action.SELL, START + 4 * MINUTE) == "flip_flop"
    assert rule_of(one, Action.BUY, START + 4 * MINUTE) is None
    assert rule_of(one, Action.SELL, START + 11 * MINUTE) is None
    unlimited = guard(flip_flop_limit=0)
    for minute in range(20):
        unlimited.published(SYMBOL, [Action.BUY, Action.SELL][minute % 2], START, NOW)
    assert rule_of(unlimited, Action.BUY) is None


def test_signals_a_minute_are_limited_and_those_of_an_earlier_life_count_by_their_own_time() -> None:
    one = guard(rate_limit_per_min=2)
    one.published(SYMBOL, Action.HOLD, START, NOW)
    one.published(ETH, Action.BUY, START, NOW - 120_000)
    one.published(ETH, Action.BUY, START, NOW - 90_000)
    assert rule_of(one, Action.BUY, START) is None
    one.published(ETH, Action.BUY, START, NOW)
    assert rule_of(one, Action.BUY, START) == "rate_limit"
    assert rule_of(one, Action.EXIT, START) is None
    assert rule_of(one, Action.BUY, START, NOW + MINUTE) is None


def test_a_symbol_that_comes_back_from_another_worker_counts_its_signals_once() -> None:
    one = guard(rate_limit_per_min=2)
    one.published(SYMBOL, Action.BUY, START, NOW)
    one.forget({SYMBOL})
    one.published(SYMBOL, Action.BUY, START, NOW)
    assert rule_of(one, Action.BUY, START) is None
    one.published(ETH, Action.BUY, START, NOW)
    assert rule_of(one, Action.BUY, START) == "rate_limit"


@pytest.mark.parametrize(
    ("sent_ms", "appended_ms", "acknowledged_ms", "skew_ms"),
    [(100, 100, 110, 0), (100, 105, 110, 0), (100, 90, 110, 10), (100, 130, 110, -20)],
)
def test_skew_is_what_no_round_trip_explains(sent_ms: int, appended_ms: int, acknowledged_ms: int, skew_ms: int) -> None:
    meter = SkewMeter()
    meter.seen(sent_ms, appended_ms, acknowledged_ms)
    assert meter.skew_ms == skew_ms


def word(state: HaltState, scope: str = "global") -> Control:
    return Control(schema_version=1, run_mode=RunMode.LIVE, scope=scope, state=state, reason="said so", actor="test", ts_ms=NOW)


def test_live_starts_halted_until_the_first_resume_and_goes_back_when_that_is_deleted() -> None:
    state = ControlState(RunMode.LIVE)
    assert "first resume" in str(state.halted(SYMBOL))
    state.apply(word(HaltState.ACTIVE, SYMBOL))
    assert state.halted(SYMBOL) is not None
    state.apply(word(HaltState.ACTIVE))
    assert state.halted(SYMBOL) is None
    state.apply(word(HaltState.HALTED, SYMBOL))
    assert (state.halted(SYMBOL), state.halted(ETH), state.halted_symbols) == ("said so", None, [SYMBOL])
    state.unset(SYMBOL)
    state.unset("global")
    assert state.halted(ETH) is not None
    assert ControlState(RunMode.SHADOW).halted(SYMBOL) is None


async def test_before_control_has_been_read_and_when_it_cannot_be_everything_is_halted() -> None:
    clock = VirtualClock(NOW)
    bus = MemoryBus(clock)
    await ensure_topics(await bus.admin(), RunMode.DEMO, 1)
    control = ControlTable(bus, clock, RunMode.DEMO, "test")
    assert control.halted(SYMBOL) == "control has not been read yet"
    await control.start()
    assert control.halted(SYMBOL) is None
    clock.advance_to(NOW + UNREADABLE_MS)
    assert control.halted(SYMBOL) is None
    clock.advance_to(NOW + UNREADABLE_MS + 1)
    assert "unreadable" in str(control.halted(SYMBOL))
    await control.close()


def test_a_halt_counts_from_when_it_was_said_first() -> None:
    live, shadow = ControlState(RunMode.LIVE), ControlState(RunMode.SHADOW)
    assert (live.halted_since_ms(5), shadow.halted_since_ms(5)) == (5, None)
    for at_ms in (100, 200):
        live.apply(word(HaltState.HALTED).model_copy(update={"ts_ms": at_ms}))
        live.apply(word(HaltState.ACTIVE, SYMBOL))
        assert live.halted_since_ms(5) == 100
    live.apply(word(HaltState.ACTIVE))
    assert live.halted_since_ms(5) is None
    live.apply(word(HaltState.HALTED).model_copy(update={"ts_ms": 300}))
    assert live.halted_since_ms(5) == 300
    live.unset("global")
    assert live.halted_since_ms(5) == 5


async def test_what_is_halted_is_shown_also_when_no_record_says_so() -> None:
    def shown() -> tuple[float | None, float | None]:
        return REGISTRY.get_sample_value("aquiline_halted"), REGISTRY.get_sample_value("aquiline_halted_seconds")

    clock = VirtualClock(NOW)
    bus = MemoryBus(clock)
    await ensure_topics(await bus.admin(), RunMode.DEMO, 1)
    control = ControlTable(bus, clock, RunMode.DEMO, "test")
    await control.start()
    control.update_gauges()
    assert shown() == (0, 0)
    clock.advance_to(NOW + UNREADABLE_MS + 1_000)
    control.update_gauges()
    assert shown() == (1, 6)
    await control.close()


async def test_control_records_that_cannot_be_used_change_nothing() -> None:
    desk = await Desk.open()
    await desk.control("HALTED")
    await desk.send_raw(Topic.CONTROL, b"global", b"not JSON")
    await desk.send_raw(Topic.CONTROL, b"global", word(HaltState.ACTIVE).encode())
    async with desk.running() as worker:
        assert worker._rooms.control.offset == 2
        assert worker._rooms.control.halted(SYMBOL) == "said so"
