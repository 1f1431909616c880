"""What becomes of a trigger, by what the engine says, what the guard says and what time it is."""

from __future__ import annotations

import asyncio
import gc

import pytest

from schemas import Action, CancelReason, Outcome, Signal, Topic
from services.core.bus import BusError
from services.core.metrics import REGISTRY
from services.fusion.decide.decision import Decision
from services.fusion.deliver.open_signals import OpenSignals
from services.fusion.deliver.publisher import Publisher
from services.fusion.observe.result import TriggerResult
from services.fusion.prompt.builder import Prompt
from services.fusion.prompt.version import version_of
from services.inference.engine import EngineError, EngineInfo
from services.strategy.folder import shipped
from tests.unit.fusion.build import MINUTE, START, SYMBOL, bar, bar_at, instrument, seen, split
from tests.unit.fusion.clock import SkewedClock
from tests.unit.fusion.desk import ABSTAIN, BUY, EXIT, HOLD, NONSENSE, NOW, SELL, Desk, ScriptedEngine

DEADLINE_MS = 2_500


async def asked(desk: Desk, slot: int = 5, close: float = 100.0) -> None:
    """Publish a bar that triggers, and return once its outcome is there."""
    before = len(await desk.audit())
    await desk.bars(bar(slot, close))
    await desk.concluded(before + 1)


async def desk_with(engine: ScriptedEngine, fallback: ScriptedEngine | None = None, **fusion: object) -> Desk:
    desk = await Desk.open(engine, fallback, start_from="latest", **fusion)
    await desk.history()
    return desk


async def test_a_signal_leaves_before_its_rationale_has_ended() -> None:
    rest = asyncio.Event()
    head, tail = BUY.split("a rise")
    desk = await desk_with(ScriptedEngine([head, rest, "a rise" + tail]))
    async with desk.running():
        await desk.bars(bar(5, 101.0))
        signals = await desk.published(1)
        assert await desk.audit() == []
        rest.set()
        (audit,) = await desk.concluded(1)
    (signal,) = signals
    assert (signal.action, signal.conviction, signal.horizon_bars) == (Action.BUY, 0.62, 5)
    assert (signal.entry_type, signal.entry, signal.stop, signal.target) == ("market", "101.00", "99.80", "103.50")
    assert signal.as_of.market.offset == 5
    assert signal.horizon_end_ms == START + 11 * MINUTE
    assert signal.valid_until_ms == NOW + 3_000
    assert signal.cached_tokens == 7
    assert (audit.outcome, audit.signal_id, audit.prompt_hash) == (Outcome.PUBLISHED, signal.signal_id, signal.prompt_hash)
    assert audit.answer == BUY
    assert {"fold", "vision_wait", "queue", "prompt", "first_token", "decision", "publish"} <= audit.latency_ms.keys()
    assert (audit.output_tokens, audit.accept_length, audit.source) == (20, 2.5, "llm")


@pytest.mark.parametrize(("answer", "action"), [(HOLD, Action.HOLD), (EXIT, Action.EXIT), (ABSTAIN, Action.ABSTAIN)])
async def test_views_without_an_entry_are_published_without_prices(answer: str, action: Action) -> None:
    desk = await desk_with(ScriptedEngine([answer]))
    async with desk.running():
        await asked(desk)
    (signal,) = await desk.signals()
    assert (signal.action, signal.entry, signal.stop, signal.entry_type) == (action, None, None, None)
    assert (signal.abstain_reason is not None) == (action is Action.ABSTAIN)
    assert (signal.conviction is None) == (action is Action.ABSTAIN)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (NONSENSE, "answer_malformed"),
        (BUY.replace("-12", "12"), "answer_invalid"),
        (BUY.replace("62", "620"), "answer_invalid"),
        (BUY.replace('"target":25', '"target":1').replace("-12", "-1"), "published"),
    ],
)
async def test_a_bad_answer_is_asked_for_again_once_and_then_failed(bad: str, reason: str) -> None:
    engine = ScriptedEngine([bad])
    desk = await desk_with(engine)
    async with desk.running():
        await asked(desk)
    (audit,) = await desk.audit()
    if reason == "published":
        assert audit.outcome is Outcome.PUBLISHED
        return
    assert (audit.outcome, audit.reason) == (Outcome.FAILED, reason)
    first, second = engine.requests
    assert first.rid != second.rid
    assert second.input_ids[: len(first.input_ids)].tolist() == first.input_ids.tolist()
    assert await desk.signals() == []


async def test_the_second_answer_counts() -> None:
    engine = ScriptedEngine([NONSENSE], [SELL])
    desk = await desk_with(engine)
    async with desk.running():
        await asked(desk)
    assert [one.action for one in await desk.signals()] == [Action.SELL]
    assert len(engine.requests) == 2


async def test_nothing_is_asked_again_where_repair_is_off() -> None:
    engine = ScriptedEngine([NONSENSE])
    desk = await desk_with(engine, repair=False)
    async with desk.running():
        await asked(desk)
    assert await desk.outcomes() == [(Outcome.FAILED, "answer_malformed")]
    assert len(engine.requests) == 1


async def test_an_answer_that_is_cut_off_is_failed() -> None:
    engine = ScriptedEngine([BUY[:40]])
    engine.finish_reason = "length"
    desk = await desk_with(engine, repair=False)
    async with desk.running():
        await asked(desk)
    assert await desk.outcomes() == [(Outcome.FAILED, "answer_cut_off")]


@pytest.mark.parametrize("tells", [True, False])
async def test_what_the_engine_cannot_answer_in_time_as_it_has_lately_answered_is_not_asked(tells: bool) -> None:  # noqa: FBT001 - parametrized
    other = "ETH-USD.CBSE"
    engine = ScriptedEngine()
    engine.tells_cached = tells
    desk = await desk_with(engine, permits=1)
    engine.scripts = [[lambda: desk.clock.advance_to(desk.clock.now_ms() + 1_900), HOLD]]
    await desk.instruments(instrument(other))
    await desk.history(symbol=other)
    async with desk.running():
        await desk.bars(bar(5), bar(5, symbol=other))
        await desk.concluded(1)
        lanes = desk.worker._rooms.dispatcher.lanes
        await desk.until(lambda: lanes.counts()["queued"] == 1)
        desk.clock.advance_to(NOW + DEADLINE_MS + 1)
        audits = {one.outcome: one for one in await desk.concluded(2)}
    assert audits.keys() == {Outcome.PUBLISHED, Outcome.STALE}
    assert (audits[Outcome.STALE].reason, audits[Outcome.STALE].prompt_tokens) == ("no_time", None)
    assert len(engine.requests) == 1


async def test_an_answer_that_never_comes_is_failed_at_the_deadline_and_aborted() -> None:
    engine = ScriptedEngine([asyncio.Event()])
    desk = await desk_with(engine)
    async with desk.running():
        await desk.bars(bar(5))
        await desk.until(lambda: engine.running == 1)
        desk.clock.advance_to(NOW + DEADLINE_MS)
        await desk.concluded(1)
        await desk.until(lambda: engine.running == 0)
    assert await desk.outcomes() == [(Outcome.FAILED, "engine_timeout")]
    assert engine.aborted == [engine.requests[0].rid]
    assert engine.requests[0].deadline_ms == NOW + DEADLINE_MS


async def test_a_decision_that_is_not_complete_at_the_deadline_is_stale_and_aborted() -> None:
    engine = ScriptedEngine([BUY[:20], asyncio.Event(), BUY[20:]])
    desk = await desk_with(engine)
    async with desk.running():
        await desk.bars(bar(5))
        await desk.until(lambda: engine.running == 1)
        await asyncio.sleep(0)
        desk.clock.advance_to(NOW + DEADLINE_MS)
        await desk.concluded(1)
    assert await desk.outcomes() == [(Outcome.STALE, "deadline")]
    assert len(engine.aborted) == 1
    assert await desk.signals() == []


async def test_a_decision_that_comes_right_after_the_deadline_does_not_leave() -> None:
    desk = await desk_with(ScriptedEngine([]))
    desk.engine.scripts = [[BUY[:20], lambda: desk.clock.advance_to(NOW + DEADLINE_MS + 1), BUY[20:]]]
    async with desk.running():
        await asked(desk)
    assert await desk.outcomes() == [(Outcome.STALE, "deadline")]
    assert await desk.signals() == []


async def test_a_rationale_that_never_ends_costs_only_itself() -> None:
    head, _ = BUY.split("a rise")
    engine = ScriptedEngine([head, asyncio.Event()])
    desk = await desk_with(engine)
    async with desk.running():
        await desk.bars(bar(5))
        await desk.published(1)
        desk.clock.advance_to(NOW + DEADLINE_MS)
        await desk.concluded(1)
    assert await desk.outcomes() == [(Outcome.PUBLISHED, None)]
    assert len(engine.aborted) == 1


async def test_a_trigger_whose_turn_comes_after_its_deadline_is_not_asked() -> None:
    gate = asyncio.Event()
    engine = ScriptedEngine([gate, BUY], [BUY])
    desk = await desk_with(engine, permits=1)
    other = "ETH-USD.CBSE"
    await desk.instruments(instrument(other))
    await desk.history(symbol=other)
    async with desk.running():
        await desk.bars(bar(5))
        await desk.until(lambda: engine.running == 1)
        await desk.bars(bar(5, symbol=other))
        await desk.until(lambda: desk.worker.accounts.triggers == 2)
        desk.clock.advance_to(NOW + DEADLINE_MS + 1)
        await desk.concluded(2)
    assert sorted(await desk.outcomes(), key=str) == [(Outcome.FAILED, "engine_timeout"), (Outcome.STALE, "deadline")]
    assert len(engine.requests) == 1


async def test_an_engine_error_is_failed_and_never_hold() -> None:
    desk = await desk_with(ScriptedEngine([EngineError("engine_unreachable", "connection refused")]))
    async with desk.running():
        await asked(desk)
    assert await desk.outcomes() == [(Outcome.FAILED, "engine_unreachable")]
    assert await desk.said() == []


async def test_a_stand_in_answers_labelled_where_one_is_configured() -> None:
    rules = ScriptedEngine([HOLD], source="rules", name="rules", model="rules/1")
    desk = await desk_with(ScriptedEngine([BUY[:30], EngineError("engine_broke", "stream ended")]), rules)
    async with desk.running():
        await asked(desk)
    (signal,) = await desk.signals()
    assert (signal.source, signal.degraded, signal.engine) == ("rules", True, "rules")
    (audit,) = await desk.audit()
    assert (audit.outcome, audit.reason, audit.source) == (Outcome.PUBLISHED, None, "rules")


async def test_an_engine_that_breaks_after_the_decision_has_left_loses_the_rationale_alone() -> None:
    head, _ = BUY.split("a rise")
    rules = ScriptedEngine([HOLD], source="rules")
    desk = await desk_with(ScriptedEngine([head, EngineError("engine_broke", "stream ended")]), rules)
    async with desk.running():
        await asked(desk)
    assert [one.action for one in await desk.signals()] == [Action.BUY]
    assert await desk.outcomes() == [(Outcome.PUBLISHED, None)]
    assert rules.requests == []


async def test_an_engine_that_says_strange_things_of_itself_still_gets_its_outcome_audited() -> None:
    desk = await desk_with(ScriptedEngine([NONSENSE + "\ud800"], name="?" * 100, model="m" * 1_000))
    async with desk.running():
        await asked(desk)
    assert await desk.outcomes() == [(Outcome.FAILED, "answer_malformed")]


class SeveralEngines(ScriptedEngine):
    """Several addresses of which one hangs: asked what all of them are, they never answer."""

    async def info(self) -> EngineInfo:
        raise EngineError("engine_timeout", "b:2 had not answered")


async def test_a_decision_waits_for_no_engine_but_the_one_that_answers_and_the_audit_names_that_one() -> None:
    desk = await desk_with(SeveralEngines([BUY], name="sglang@a:1", model="one"))
    async with desk.running():
        await asked(desk)
    (audit,), (signal,) = await desk.audit(), await desk.signals()
    assert (audit.outcome, audit.engine, audit.model) == (Outcome.PUBLISHED, "sglang@a:1", "one")
    assert (signal.engine, signal.model, signal.source) == ("sglang@a:1", "one", "llm")


async def test_a_cut_prompt_is_failed_by_its_own_name() -> None:
    desk = await desk_with(ScriptedEngine([EngineError("prompt_cut", "gpu:1 read 4,096 of the prompt's 6,162 tokens")]))
    async with desk.running():
        await asked(desk)
    (audit,) = await desk.audit()
    assert (audit.outcome, audit.reason) == (Outcome.FAILED, "prompt_cut")


async def test_an_engine_that_says_it_read_less_than_it_was_sent_has_its_answer_failed() -> None:
    engine = ScriptedEngine([HOLD.replace(',"rationale":"no edge"', "")])
    engine.unread = 1
    desk = await desk_with(engine)
    async with desk.running():
        await asked(desk)
    (audit,) = await desk.audit()
    assert (audit.outcome, audit.reason) == (Outcome.FAILED, "prompt_cut")
    assert await desk.said() == []


async def test_what_is_halted_is_not_asked() -> None:
    engine = ScriptedEngine()
    desk = await desk_with(engine)
    await desk.control("HALTED")
    async with desk.running():
        await asked(desk)
        assert await desk.outcomes() == [(Outcome.BLOCKED, "halted")]
        await desk.control("ACTIVE")
        await desk.control("HALTED", "ETH-USD.CBSE")
        await desk.until(lambda: desk.worker._rooms.control.offset == 2)
        await asked(desk, 6)
    assert (await desk.outcomes())[1] == (Outcome.PUBLISHED, None)
    assert len(engine.requests) == 1


async def test_a_halt_that_comes_while_the_engine_answers_stops_the_signal() -> None:
    gate = asyncio.Event()
    engine = ScriptedEngine([gate, BUY])
    desk = await desk_with(engine)
    async with desk.running():
        await desk.bars(bar(5))
        await desk.until(lambda: engine.running == 1)
        await desk.control("HALTED", SYMBOL)
        await desk.until(lambda: desk.worker._rooms.control.offset == 0)
        gate.set()
        (audit,) = await desk.concluded(1)
    assert (audit.outcome, audit.reason, audit.detail) == (Outcome.BLOCKED, "halted", "said so")
    assert await desk.said() == []


async def test_bars_revised_while_the_engine_answers_keep_the_signal_back() -> None:
    gate = asyncio.Event()
    engine = ScriptedEngine([gate, BUY])
    desk = await desk_with(engine)
    async with desk.running():
        await desk.bars(bar(5))
        await desk.until(lambda: engine.running == 1)
        await desk.bars(bar(4, 90.0, revision=1))
        await desk.until(lambda: desk.worker.accounts.records["folded"] == 2)
        gate.set()
        await desk.concluded(1)
    assert await desk.outcomes() == [(Outcome.STALE, "rewritten")]
    assert await desk.said() == []


async def test_a_decision_on_less_than_one_before_is_not_asked() -> None:
    desk = await desk_with(ScriptedEngine())
    async with desk.running() as worker:
        await asked(desk)
        ((_, held),) = next(owned for owned in worker._rooms.partitions._owned.values() if owned.history.as_of).history.as_of.items()
        later = held.model_copy(update={"market": held.market.model_copy(update={"offset": 99})})
        for owned in worker._rooms.partitions._owned.values():
            owned.history.as_of = dict.fromkeys(owned.history.as_of, later)
        await asked(desk, 6)
    assert (await desk.outcomes())[1] == (Outcome.STALE, "as_of_behind")


@pytest.mark.parametrize(
    ("rule", "fusion", "slots"),
    [
        ("min_bars", {"min_bars": 7}, {5: 100.0}),
        ("max_gap_bars", {"max_gap_bars": 2}, {8: 100.0}),
        ("suspected_split", {}, {5: 50.0}),
        ("clock_skew", {"max_skew_ms": 100}, {5: 100.0}),
        ("event_lag", {"max_event_lag_ms": 1_000}, {5: 100.0}),
    ],
)
async def test_rules_stop_what_is_not_fit_to_be_asked(rule: str, fusion: dict[str, object], slots: dict[int, float]) -> None:
    engine = ScriptedEngine()
    desk = await desk_with(engine, None, **fusion)
    async with desk.running() as worker:
        if rule == "clock_skew":
            worker._rooms.publisher.skew.skew_ms = 200
        for slot, close in slots.items():
            await asked(desk, slot, close)
    assert await desk.outcomes() == [(Outcome.BLOCKED, rule)]
    assert engine.requests == []


async def test_without_an_average_range_there_are_no_prices_and_no_call() -> None:
    engine = ScriptedEngine()
    desk = await desk_with(engine)
    async with desk.running():
        await desk.bars(bar_at(START + 5 * MINUTE, atr=None))
        await desk.concluded(1)
    assert await desk.outcomes() == [(Outcome.BLOCKED, "no_atr")]


async def test_rules_on_entries_stop_the_next_one() -> None:
    desk = await desk_with(ScriptedEngine([BUY], [BUY], [EXIT]), cool_down_ms=10 * MINUTE)
    async with desk.running():
        for slot in (5, 6, 7):
            await asked(desk, slot)
    assert await desk.outcomes() == [(Outcome.PUBLISHED, None), (Outcome.BLOCKED, "cool_down"), (Outcome.PUBLISHED, None)]


async def test_validity_ends_with_the_session() -> None:
    """The second minute before the close of 2024-07-01 in New York, 20:00 UTC."""
    symbol = "AAPL.XNAS"
    close_ms = START + 20 * 60 * MINUTE
    desk = await Desk.open(ScriptedEngine([HOLD]), entry_validity_ms={"1m": 600_000}, min_bars=1)
    await desk.instruments(instrument(symbol, calendar="XNYS"))
    async with desk.running():
        await desk.bars(bar_at(close_ms - 3 * MINUTE, symbol=symbol))
        await desk.concluded(1)
        await desk.bars(bar_at(close_ms - 2 * MINUTE, symbol=symbol))
        await desk.concluded(2)
    assert [one.valid_until_ms - NOW for one in await desk.signals()] == [2 * MINUTE, MINUTE]


async def test_vision_features_are_in_the_signal_with_their_age() -> None:
    desk = await desk_with(ScriptedEngine([HOLD]))
    await desk.send(Topic.VISION_FEATURES, seen(START + 4 * MINUTE, 0.7))
    async with desk.running():
        await asked(desk)
    (signal,) = await desk.signals()
    assert (signal.vision, signal.vision_age_ms) == ("stale", 2 * MINUTE)
    assert signal.as_of.vision is not None


async def test_a_producer_that_refuses_ends_the_trigger_as_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(self: Publisher, signal: Signal, headers: object = ()) -> None:
        del self, signal, headers
        raise BusError("the buffer is full")

    monkeypatch.setattr(Publisher, "hand_over", refuse)
    desk = await desk_with(ScriptedEngine())
    async with desk.running():
        await asked(desk)
    assert await desk.outcomes() == [(Outcome.FAILED, "publish_failed")]


async def test_a_split_that_is_known_ahead_cancels_what_is_open_when_it_takes_effect() -> None:
    desk = await desk_with(ScriptedEngine([BUY], [HOLD]))
    await desk.split(split(START + 6 * MINUTE, 2.0))
    async with desk.running():
        await asked(desk, 5, 100.0)
        await asked(desk, 6, 50.0)
        await desk.until(lambda: not desk.worker._rooms.publisher.cancels.writing)
    (cancel,) = await desk.cancels()
    assert cancel.reason is CancelReason.SPLIT
    assert [reason for _, reason in await desk.outcomes()] == [None, None]


async def test_each_decision_shows_how_late_its_bar_came() -> None:
    def observed() -> float:
        return REGISTRY.get_sample_value("aquiline_event_lag_seconds_count") or 0.0

    before = observed()
    desk = await desk_with(ScriptedEngine(BUY), None)
    async with desk.running():
        await asked(desk, 5)
    assert observed() == before + 1


def _breaks() -> None:
    raise TypeError("unsupported operand: None")


async def test_a_signal_whose_reading_broke_after_hand_over_ends_as_the_broker_said() -> None:
    head, tail = BUY.split("a rise")
    desk = await desk_with(ScriptedEngine([head, _breaks, tail]))
    async with desk.running():
        await asked(desk)
    (signal,) = await desk.signals()
    (audit,) = await desk.audit()
    assert (audit.outcome, audit.reason, audit.signal_id) == (Outcome.PUBLISHED, None, signal.signal_id)
    assert "TypeError" in audit.detail


async def test_a_reading_that_broke_before_hand_over_is_failed() -> None:
    desk = await desk_with(ScriptedEngine([BUY[:20], _breaks, BUY[20:]]))
    async with desk.running():
        await asked(desk)
    assert await desk.outcomes() == [(Outcome.FAILED, "internal_error")]
    assert await desk.said() == []


async def test_bookkeeping_that_breaks_after_the_acknowledgement_leaves_the_outcome_published(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(self: OpenSignals, signal: Signal) -> None:
        del self, signal
        raise KeyError("lost")

    monkeypatch.setattr(OpenSignals, "add", breaks)
    desk = await desk_with(ScriptedEngine([BUY]))
    async with desk.running():
        await asked(desk)
    assert await desk.outcomes() == [(Outcome.PUBLISHED, None)]
    assert len(await desk.signals()) == 1


@pytest.mark.parametrize("skew_ms", [-1_900, 1_900])
@pytest.mark.parametrize(("late_ms", "outcome"), [(0, Outcome.PUBLISHED), (1, Outcome.STALE)])
async def test_no_signal_is_handed_over_past_its_deadline_by_the_brokers_clock(skew_ms: int, late_ms: int, outcome: Outcome) -> None:
    """The second decision: the acknowledgements of the first have shown by how much the worker's clock is wrong."""
    desk = await desk_with(ScriptedEngine([]))
    desk.worker_clock = SkewedClock(desk.clock, skew_ms)
    desk.engine.scripts = [[HOLD], [BUY[:20], lambda: desk.clock.advance_to(NOW + DEADLINE_MS + late_ms), BUY[20:]]]
    async with desk.running():
        await asked(desk)
        await asked(desk, 6)
    assert [one for one, _ in await desk.outcomes()] == [Outcome.PUBLISHED, outcome]


async def test_the_first_decision_of_a_worker_whose_clock_is_behind_meets_the_brokers_deadline_too() -> None:
    desk = await desk_with(ScriptedEngine([]))
    desk.worker_clock = SkewedClock(desk.clock, -1_900)
    desk.engine.scripts = [[BUY[:20], lambda: desk.clock.advance_to(NOW + DEADLINE_MS + 1), BUY[20:]]]
    async with desk.running():
        await asked(desk)
    assert await desk.outcomes() == [(Outcome.STALE, "deadline")]
    assert await desk.said() == []


@pytest.mark.parametrize("answer", [BUY, ABSTAIN, NONSENSE, EngineError("engine_broke", "gone")])
async def test_an_ended_decision_is_freed_without_waiting_for_the_collector(answer: str | EngineError) -> None:
    """A decision holds its prompt's token ids: in a reference cycle, those of thousands of decisions stayed in memory."""
    engine = ScriptedEngine([answer])
    desk = await desk_with(engine)
    async with desk.running():
        await asked(desk)
        gc.collect()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            await asked(desk, 6)
            engine.requests.clear()
            gc.collect()
            left = [type(one).__name__ for one in gc.garbage if isinstance(one, Decision | Prompt | TriggerResult)]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
    assert left == []


async def test_prices_are_made_of_close_and_range_whether_or_not_the_strategy_shows_them() -> None:
    own = shipped().model_copy(update={"facts": [], "columns": ["close"]})
    desk = await desk_with(ScriptedEngine([BUY]), strategy=own)
    async with desk.running():
        await desk.bars(bar(5, 101.0))
        await desk.concluded(1)
    (signal,) = await desk.published(1)
    assert (signal.entry, signal.stop, signal.target) == ("101.00", "99.80", "103.50")
    assert signal.prompt_version == version_of(own)
