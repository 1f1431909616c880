"""The worker end to end on the in-process bus: accounting, conflation, vision waits, restarts, poison, splits and revisions."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import orjson
import pytest

from schemas import CancelReason, DeadLetterReason, Outcome, RunMode, Signal, SymbolChange, Topic
from services.core.bus import BusError, Committed, TopicPartition
from services.core.clock import VirtualClock
from services.core.health import Health
from services.core.instruments import Instruments
from services.core.lifecycle import explain
from services.core.settings import SettingsError
from services.core.topic_admin import ensure_topics
from services.fusion.decide.control import UNREADABLE_MS
from services.fusion.deliver.accounts import PoisonedStreamError
from services.fusion.deliver.commit_metadata import CommitMetadata, decode_metadata, encode_metadata
from services.fusion.deliver.ownership import PartitionsChangedError
from services.fusion.rooms import WorkerDependencies
from services.fusion.worker import FusionWorker
from services.inference.engine import EngineError
from tests.unit.fusion import build
from tests.unit.fusion.build import MARKET, MINUTE, MODE, START, SYMBOL, VISION, bar, bar_at, instrument, seen, split
from tests.unit.fusion.desk import BUY, HOLD, NONSENSE, NOW, SELL, Desk, ScriptedEngine, Step

ETH = "ETH-USD.CBSE"
RENAMED = "BTC-USDC.CBSE"


async def sums_close(desk: Desk, records: int) -> None:
    """Check that every record and every trigger is accounted for, in the worker's books and by the audit topic."""
    summary = desk.worker.accounts.summary()
    assert summary["records"] == records
    counted = [summary[name] for name in ("folded", "duplicates", "filtered", "dead_lettered")]
    assert sum(number for number in counted if isinstance(number, int)) == records
    audit = await desk.audit()
    ids = Counter(one.trigger_id for one in audit)
    assert set(ids.values()) <= {1}
    assert summary["triggers"] == len(ids)
    assert summary["outcomes"] == dict(Counter(one.outcome.value for one in audit))


async def test_every_record_and_every_trigger_is_accounted_for() -> None:
    desk = await Desk.open(ScriptedEngine([BUY], [NONSENSE], [HOLD]), min_bars=1)
    async with desk.running():
        await desk.bars(bar(0), bar(0), bar(1), bar(2, interval="5m"), bar(0, 50.0), bar(2, closed=False), bar(2))
        await desk.send(Topic.VISION_FEATURES, seen(START + MINUTE), seen(START + MINUTE), seen(START + MINUTE, interval="1h"))
        await desk.until(lambda: sum(desk.worker.accounts.records.values()) == 10)
        await desk.until(lambda: desk.worker._rooms.partitions.watermarks.unfinished == 0)
    await sums_close(desk, 10)
    assert desk.worker.accounts.records == {"folded": 5, "duplicate": 2, "filtered": 2, "dead_lettered": 1}
    assert await desk.committed() == {MARKET: 7, VISION: 3}
    assert desk.engine.closed


def altered(**changes: object) -> bytes:
    return orjson.dumps({**orjson.loads(bar(5).encode()), **changes})


@pytest.mark.parametrize(
    ("reason", "key", "value"),
    [
        (DeadLetterReason.EMPTY, SYMBOL.encode(), None),
        (DeadLetterReason.EMPTY, SYMBOL.encode(), b""),
        (DeadLetterReason.TOO_LARGE, SYMBOL.encode(), b"x" * 1_000_000),
        (DeadLetterReason.MALFORMED, SYMBOL.encode(), b"not JSON"),
        (DeadLetterReason.MALFORMED, SYMBOL.encode(), altered()[:-10]),
        (DeadLetterReason.MALFORMED, SYMBOL.encode(), b"[]"),
        (DeadLetterReason.INVALID, SYMBOL.encode(), altered(close="100")),
        (DeadLetterReason.INVALID, SYMBOL.encode(), altered(high=1.0)),
        (DeadLetterReason.INVALID, SYMBOL.encode(), altered(close=None)),
        (DeadLetterReason.INVALID, SYMBOL.encode(), altered(features={"atr": "NaN"})),
        (DeadLetterReason.MALFORMED, SYMBOL.encode(), altered().replace(b"1000.0", b"1e999x")),
        (DeadLetterReason.INVALID, SYMBOL.encode(), altered(ts_close_ms=START)),
        (DeadLetterReason.UNSUPPORTED_VERSION, SYMBOL.encode(), altered(schema_version=2)),
        (DeadLetterReason.KEY_MISMATCH, b"AAPL.XNAS", altered()),
        (DeadLetterReason.KEY_MISMATCH, b"", altered()),
        (DeadLetterReason.KEY_MISMATCH, None, altered()),
        (DeadLetterReason.WRONG_RUN_MODE, SYMBOL.encode(), altered(run_mode="live")),
        (DeadLetterReason.UNKNOWN_INSTRUMENT, ETH.encode(), altered(symbol=ETH)),
        (DeadLetterReason.CONFLICT, SYMBOL.encode(), bar(4, 50.0).encode()),
        (DeadLetterReason.CONFLICT, SYMBOL.encode(), bar_at(START + 5 * MINUTE - 1).encode()),
        (DeadLetterReason.LATE, SYMBOL.encode(), bar(-3).encode()),
        (DeadLetterReason.FUTURE, SYMBOL.encode(), bar(2_000).encode()),
    ],
)
async def test_what_cannot_be_used_is_put_aside_as_it_came_and_the_worker_goes_on(
    reason: DeadLetterReason, key: bytes | None, value: bytes | None
) -> None:
    desk = await Desk.open(start_from="latest")
    await desk.history()
    async with desk.running():
        await desk.send_raw(Topic.MARKET_FEATURES, key, value)
        await desk.until(lambda: desk.worker.accounts.records["dead_lettered"] == 1)
        await desk.bars(bar(5))
        await desk.concluded(1)
    (put,) = await desk.dead_letters()
    assert (put.letter.reason, put.letter.topic, put.key, put.value) == (reason, MARKET, key, value)
    assert put.letter.detail
    assert await desk.outcomes() == [(Outcome.PUBLISHED, None)]
    assert desk.worker.accounts.dead_letters == {reason.value: 1}


async def test_instruments_that_cannot_be_used_and_symbols_beyond_the_limit_are_put_aside() -> None:
    desk = await Desk.open(max_symbols=1)
    await desk.instruments(instrument(ETH), instrument("ZERO.XNAS", tick="0.00"), instrument("ODD.XNAS", calendar="NOWHERE"))
    async with desk.running():
        await desk.bars(bar(0, symbol="ZERO.XNAS"), bar(0, symbol="ODD.XNAS"))
        await desk.until(lambda: desk.worker.accounts.records["dead_lettered"] == 2)
        await desk.bars(bar(0), bar(1))
        await desk.until(lambda: desk.worker.accounts.records["folded"] == 2)
        await desk.bars(bar(0, symbol=ETH), bar(2))
        await desk.until(lambda: sum(desk.worker.accounts.records.values()) == 6)
    assert desk.worker.accounts.dead_letters == {"unknown_instrument": 2, "too_many_symbols": 1}


async def test_a_bar_that_overtakes_its_instrument_waits_for_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing follows the tables here: only a record that asks for them has them read on."""

    async def follow(_: Instruments) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Instruments, "follow", follow)
    desk = await Desk.open()
    async with desk.running():
        await desk.instruments(instrument(ETH))
        await desk.bars(bar(0, symbol=ETH))
        await desk.until(lambda: sum(desk.worker.accounts.records.values()) == 1)
        assert desk.worker.accounts.records["folded"] == 1


async def test_a_poisoned_stream_stops_the_worker_with_a_sentence() -> None:
    desk = await Desk.open(dead_letter_window=10)
    desk.start()
    await desk.ready()
    for _ in range(10):
        await desk.send_raw(Topic.MARKET_FEATURES, b"X", b"poison")
    with pytest.raises(ExceptionGroup) as caught:
        await desk.ended()
    assert caught.group_contains(PoisonedStreamError, match="10 of the last 10 records could not be used .*malformed")
    assert len(await desk.dead_letters()) == 10
    assert desk.engine.closed


async def test_newer_triggers_replace_those_in_line() -> None:
    gate = asyncio.Event()
    desk = await Desk.open(ScriptedEngine([gate, HOLD], [HOLD]), start_from="latest")
    await desk.history()
    async with desk.running():
        await desk.bars(bar(5))
        await desk.until(lambda: desk.engine.running == 1)
        await desk.bars(bar(6), bar(7), bar(8))
        await desk.concluded(2)
        gate.set()
        audit = await desk.concluded(4)
    assert [(one.outcome, one.trigger.offset) for one in sorted(audit, key=lambda one: one.trigger.offset)] == [
        (Outcome.PUBLISHED, 5),
        (Outcome.CONFLATED, 6),
        (Outcome.CONFLATED, 7),
        (Outcome.PUBLISHED, 8),
    ]
    await sums_close(desk, 4)
    as_of = [one.as_of.market.offset for one in await desk.signals()]
    assert as_of == sorted(as_of) == [5, 8]


async def test_a_bar_waits_for_the_features_of_its_window_and_their_arrival_is_no_trigger() -> None:
    desk = await Desk.open(ScriptedEngine([HOLD]), start_from="latest", vision_wait_ms=150, trigger_on_vision=True)
    await desk.history()
    await desk.send(Topic.VISION_FEATURES, seen(START + 5 * MINUTE))
    async with desk.running():
        await desk.bars(bar(5))
        await desk.until(lambda: desk.worker._rooms.dispatcher.lanes.counts()["waiting"] == 1)
        assert desk.engine.requests == []
        desk.clock.advance_to(NOW + 77)
        await desk.send(Topic.VISION_FEATURES, seen(START + 6 * MINUTE))
        await desk.concluded(1)
        await desk.send(Topic.VISION_FEATURES, seen(START + 6 * MINUTE, 0.9))
        await desk.concluded(2)
    first, second = sorted(await desk.audit(), key=lambda one: one.trigger_kind)
    assert (first.trigger_kind, first.vision, first.latency_ms["vision_wait"]) == ("closed_bar", "fresh", 77.0)
    assert second.trigger_kind == "vision"


async def test_a_wait_for_vision_features_times_out() -> None:
    desk = await Desk.open(ScriptedEngine([HOLD]), start_from="latest", vision_wait_ms=150)
    await desk.history()
    await desk.send(Topic.VISION_FEATURES, seen(START + 4 * MINUTE))
    async with desk.running():
        await desk.bars(bar(5))
        await desk.until(lambda: desk.clock.next_wake_ms() == NOW + 150)
        desk.clock.advance_to(NOW + 150)
        (audit,) = await desk.concluded(1)
    assert (audit.outcome, audit.vision, audit.latency_ms["vision_wait"]) == (Outcome.PUBLISHED, "stale", 150.0)


async def test_a_bar_does_not_wait_for_vision_features_that_have_not_been_coming() -> None:
    desk = await Desk.open(ScriptedEngine([HOLD]), start_from="latest", vision_wait_ms=150)
    await desk.history()
    async with desk.running():
        await desk.bars(bar(5))
        (audit,) = await desk.concluded(1)
    assert (audit.outcome, audit.vision, audit.latency_ms["vision_wait"]) == (Outcome.PUBLISHED, "absent", 0.0)


async def test_triggers_too_old_for_their_turn_are_stale() -> None:
    desk = await Desk.open(max_staleness_ms=1_000)
    await desk.bars(bar(0), bar(1))
    desk.clock.advance_to(NOW + 1_001)
    async with desk.running():
        await desk.concluded(2)
    assert await desk.outcomes() == [(Outcome.CONFLATED, "newer_trigger"), (Outcome.STALE, "too_old")]
    assert desk.engine.requests == []


async def test_past_the_cap_the_oldest_in_line_ends_stale() -> None:
    gate = asyncio.Event()
    desk = await Desk.open(ScriptedEngine([gate, HOLD]), max_unfinished=2, permits=1, min_bars=1)
    symbols = [f"COIN{number}-USD.CBSE" for number in range(5)]
    await desk.instruments(*map(instrument, symbols))
    async with desk.running():
        await desk.bars(bar(0, symbol=symbols[0]))
        await desk.until(lambda: desk.engine.running == 1)
        for symbol in symbols[1:]:
            await desk.bars(bar(0, symbol=symbol))
        await desk.until(lambda: desk.worker.accounts.outcomes["stale"] >= 1)
        gate.set()
        await desk.concluded(5)
    assert Counter(await desk.outcomes()) == {(Outcome.PUBLISHED, None): 2, (Outcome.STALE, "backlog"): 3}
    await sums_close(desk, 5)


async def test_a_stop_lets_running_calls_end_and_commits_them() -> None:
    gate = asyncio.Event()
    desk = await Desk.open(ScriptedEngine([gate, HOLD]), start_from="latest")
    await desk.history()
    async with desk.running():
        await desk.bars(bar(5))
        await desk.until(lambda: desk.engine.running == 1)
        desk.worker.stop()
        await desk.bars(bar(6))
        gate.set()
    assert await desk.outcomes() == [(Outcome.PUBLISHED, None)]
    assert (await desk.committed())[MARKET] in {6, 7}


async def test_calls_beyond_the_drain_budget_are_aborted_and_asked_by_the_next_worker() -> None:
    desk = await Desk.open(ScriptedEngine([asyncio.Event()], [HOLD]), start_from="latest", drain_ms=100)
    await desk.history()
    async with desk.running():
        await desk.bars(bar(5), bar(6))
        await desk.until(lambda: desk.engine.running == 1)
    assert len(desk.engine.aborted) == 1
    in_line = len(await desk.audit())
    async with desk.running():
        await desk.concluded(2)
    audit = await desk.audit()
    assert in_line < len(audit) == 2
    assert len({one.trigger_id for one in audit}) == 2
    assert audit[-1].outcome is Outcome.PUBLISHED


class Gates:
    """Gates that let an engine's calls go on, opened in order."""

    def __init__(self, rng: random.Random, count: int) -> None:
        self._gates = [asyncio.Event() for _ in range(count)]
        self._opened = 0
        self.scripts: list[list[Step]] = [[gate, rng.choice([BUY, HOLD, SELL, NONSENSE])] for gate in self._gates]

    def open(self, count: int) -> None:
        for gate in self._gates[self._opened : self._opened + count]:
            gate.set()
        self._opened += count


async def moments(count: int) -> None:
    """Let the loop turn so many times."""
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("seed", range(4))
async def test_nothing_is_without_outcome_and_nothing_with_two_however_often_the_worker_is_killed(seed: int) -> None:
    """Bars of three symbols, workers that are killed or stopped at random moments, at last one that is left alone."""
    rng = random.Random(seed)  # noqa: S311
    symbols = [f"COIN{number}-USD.CBSE" for number in range(3)]
    gates = Gates(rng, 400)
    desk = await Desk.open(ScriptedEngine(*gates.scripts), min_bars=2, permits=2, commit_interval_ms=5)
    await desk.instruments(*map(instrument, symbols))
    sent = 0
    for life in range(12):
        desk.start()
        for _ in range(rng.randint(0, 6)):
            await desk.bars(*(bar(sent, 100 + sent % 3, symbol=symbol) for symbol in symbols))
            sent += 1
            await moments(rng.randint(0, 40))
            gates.open(rng.randint(0, 4))
        await desk.ready()
        await moments(rng.randint(0, 200))
        if life % 4 == 3:
            gates.open(400)
            await desk.stop()
        else:
            await desk.crash()
    gates.open(400)
    async with desk.running() as worker:
        await desk.until(lambda: worker.caught_up and worker._rooms.partitions.watermarks.unfinished == 0)
    audit = await desk.audit()
    assert len({one.trigger_id for one in audit}) == len(audit) == 3 * sent
    assert (await desk.committed())[MARKET] == 3 * sent
    await signals_match(desk)


async def signals_match(desk: Desk) -> None:
    """Check that each signal is the one of a published trigger, and that no lane's as-of goes backwards."""
    outcomes = {one.trigger_id: one.outcome for one in await desk.audit()}
    signals = await desk.signals()
    assert len({one.signal_id for one in signals}) == len(signals)
    lanes: dict[str, int] = {}
    for one in signals:
        assert outcomes[one.trigger_id] is Outcome.PUBLISHED
        assert one.as_of.market.offset >= lanes.get(one.symbol, -1)
        lanes[one.symbol] = one.as_of.market.offset


async def test_a_signal_whose_audit_never_came_gets_its_outcome_and_is_not_asked_again() -> None:
    head, tail = HOLD.split("no edge")
    desk = await Desk.open(ScriptedEngine([head, asyncio.Event(), tail]), start_from="latest")
    await desk.history()
    desk.start()
    await desk.ready()
    await desk.bars(bar(5))
    (signal,) = await desk.published(1)
    await desk.crash()
    assert await desk.audit() == []
    async with desk.running():
        (audit,) = await desk.concluded(1)
    assert (audit.outcome, audit.signal_id, audit.as_of) == (Outcome.PUBLISHED, signal.signal_id, signal.as_of)
    assert len(desk.engine.requests) == 1
    assert len(await desk.signals()) == 1


async def test_guard_and_open_signals_are_restored_from_the_partitions_own_outputs() -> None:
    desk = await Desk.open(ScriptedEngine([BUY], [SELL]), start_from="latest", cool_down_ms=10 * MINUTE, entry_validity_ms={"1m": 60_000})
    await desk.history()
    async with desk.running():
        await desk.bars(bar(5))
        await desk.concluded(1)
    async with desk.running():
        await desk.bars(bar(6))
        await desk.concluded(2)
        await desk.control("HALTED")
        await desk.until(lambda: desk.worker._rooms.control.offset == 0)
    assert (await desk.outcomes())[1] == (Outcome.BLOCKED, "cool_down")
    (cancel,) = await desk.cancels()
    assert (cancel.reason, cancel.signal_id) == (CancelReason.HALTED, (await desk.signals())[0].signal_id)


async def test_a_restart_while_halted_cancels_what_an_earlier_life_left_open_and_asks_nothing() -> None:
    desk = await Desk.open(ScriptedEngine([BUY]), start_from="latest", entry_validity_ms={"1m": 60_000})
    await desk.history()
    async with desk.running():
        await desk.bars(bar(5))
        await desk.concluded(1)
    await desk.control("HALTED")
    async with desk.running():
        await desk.bars(bar(6))
        await desk.concluded(2)
    assert (await desk.outcomes())[1] == (Outcome.BLOCKED, "halted")
    assert [one.reason for one in await desk.cancels()] == [CancelReason.HALTED]


async def test_a_newer_signal_of_the_lane_supersedes_the_one_before() -> None:
    desk = await Desk.open(ScriptedEngine([BUY], [HOLD], [SELL]), start_from="latest", entry_validity_ms={"1m": 60_000})
    await desk.history()
    async with desk.running():
        for number in range(3):
            await desk.bars(bar(5 + number))
            await desk.concluded(1 + number)
    (cancel,) = await desk.cancels()
    first, _, _ = await desk.signals()
    assert (cancel.reason, cancel.signal_id) == (CancelReason.SUPERSEDED, first.signal_id)


async def test_a_revision_cancels_what_is_open_and_starts_a_new_epoch() -> None:
    desk = await Desk.open(ScriptedEngine([BUY], [HOLD]), start_from="latest", entry_validity_ms={"1m": 60_000}, epoch_slots=15)
    await desk.history()
    async with desk.running():
        await desk.bars(bar(5))
        await desk.concluded(1)
        await desk.bars(bar(3, 99.0, revision=1))
        await desk.until(lambda: desk.worker.accounts.records["folded"] == 2)
        await desk.bars(bar(6))
        await desk.concluded(2)
    (cancel,) = await desk.cancels()
    assert cancel.reason is CancelReason.REVISED
    before, after = (build.tokenizer().decode(request.input_ids) for request in desk.engine.requests)
    assert not after.startswith(before[: before.index("Now ")])
    assert "99.00" in after


async def test_a_symbol_that_is_replaced_stops_deciding_and_the_new_one_starts_with_its_own_bars() -> None:
    desk = await Desk.open(ScriptedEngine([HOLD]), start_from="latest")
    await desk.history()
    change = SymbolChange(
        schema_version=1, run_mode=MODE, symbol=SYMBOL, event="symbol_change", new_symbol=RENAMED, effective_ms=START + 6 * MINUTE
    )
    async with desk.running() as worker:
        await desk.bars(bar(5))  # closes as the new symbol begins
        await desk.concluded(1)
        await desk.send(Topic.INSTRUMENTS, instrument(RENAMED))
        await desk.send(Topic.INSTRUMENT_EVENTS, change)
        await desk.until(lambda: worker._rooms.books.get(SYMBOL).instrument.expiry_ms == change.effective_ms)  # type: ignore[union-attr]
        await desk.bars(bar(6), bar_at(START + 6 * MINUTE, symbol=RENAMED))
        await desk.concluded(3)
    assert {one.symbol: one.reason for one in await desk.audit() if one.reason} == {SYMBOL: "expired", RENAMED: "min_bars"}
    async with desk.running():  # a worker that starts anew agrees
        await desk.bars(bar(7))
        await desk.concluded(4)
    assert (await desk.outcomes())[-1][1] == "expired"


async def test_the_bars_of_a_symbol_that_is_replaced_may_be_published_under_the_new_one_before_it_begins() -> None:
    desk = await Desk.open(ScriptedEngine([HOLD]), start_from="latest")
    await desk.instruments(instrument(RENAMED))
    await desk.bars(*(bar(number) for number in range(5)), *(bar(number, symbol=RENAMED) for number in range(5)))
    async with desk.running():
        await desk.bars(bar(5, symbol=RENAMED))
        await desk.concluded(1)
    assert await desk.outcomes() == [(Outcome.PUBLISHED, None)]


async def test_a_split_rescales_the_book_and_cancels_what_is_open() -> None:
    desk = await Desk.open(ScriptedEngine([BUY], [HOLD]), start_from="latest", entry_validity_ms={"1m": 60_000})
    await desk.history()
    async with desk.running():
        await desk.bars(bar(5))
        await desk.concluded(1)
        await desk.bars(bar(6, 50.0))
        await desk.concluded(2)
        await desk.split(split(START + 6 * MINUTE, 2.0))
        await desk.until(lambda: desk.worker._rooms.books.get(SYMBOL).epochs.version == 1)  # type: ignore[union-attr]
        await desk.bars(bar(7, 51.0))
        await desk.concluded(3)
    assert [reason for _, reason in await desk.outcomes()] == [None, "suspected_split", None]
    assert [one.reason for one in await desk.cancels()] == [CancelReason.SPLIT]
    shown = build.tokenizer().decode(desk.engine.requests[-1].input_ids)
    assert "50.00" in shown
    assert "100.00" not in shown


async def test_control_that_has_been_unreadable_counts_as_halted() -> None:
    desk = await Desk.open(start_from="latest", max_staleness_ms=100_000, entry_validity_ms={"1m": 60_000})
    await desk.history()
    async with desk.running() as worker:
        worker._rooms.control._tables.last_read_ms = NOW - UNREADABLE_MS - 1
        why = worker._rooms.control.halted(SYMBOL)
        assert why is not None
        assert "unreadable for 5001 ms" in why
        worker._rooms.control._tables.last_read_ms = NOW - UNREADABLE_MS
        assert worker._rooms.control.halted(SYMBOL) is None


async def test_prefixes_are_sent_ahead_and_the_next_epoch_starts_with_them() -> None:
    desk = await Desk.open(ScriptedEngine([HOLD]), prewarm=True, min_bars=1, window_bars=40, epoch_slots=8)
    async with desk.running() as worker:
        for slot in range(30):
            await desk.bars(bar(slot))
            await desk.concluded(slot + 1)
            await desk.until(worker.prewarmer._idle.is_set)
    assert worker.prewarmer.count.calls == len(desk.engine.warmed) > 3
    asked = [request.input_ids.tolist() for request in desk.engine.requests]
    for warmed in desk.engine.warmed[2:]:
        ids = warmed.tolist()
        assert any(one[: len(ids)] == ids for one in asked) or len(ids) >= min(map(len, asked[-3:])) - 400


async def test_run_mode_live_refuses_the_simulator_and_lets_go_of_what_it_opened() -> None:
    desk = await Desk.open()
    engine = ScriptedEngine(source="simulator")
    live = desk.settings.model_copy(update={"run_mode": RunMode.LIVE})
    await ensure_topics(await desk.bus.admin(), RunMode.LIVE, 1)
    clock = VirtualClock(NOW)
    with pytest.raises(SettingsError, match="refuses the simulator"):
        await FusionWorker.open(WorkerDependencies(desk.bus, live, clock, Health(), engine, None, build.tokenizer(), None))
    assert engine.closed


async def test_topics_with_unlike_partition_counts_are_refused() -> None:
    desk = Desk()
    desk.start()
    with pytest.raises(BusError, match="do not exist"):
        await desk.ended()
    assert desk.engine.closed


async def test_an_engine_that_was_down_is_sent_the_other_prefixes_in_use_when_it_is_back() -> None:
    engine = ScriptedEngine([HOLD], [HOLD], [EngineError("engine_unreachable", "refused")], [HOLD])
    desk = await Desk.open(engine, prewarm=True, start_from="latest")
    await desk.instruments(instrument(ETH))
    await desk.history(20)
    await desk.history(20, ETH)
    async with desk.running() as worker:
        await desk.until(worker.prewarmer._idle.is_set)
        before = len(engine.warmed)
        for number, one in enumerate((bar(20, symbol=ETH), bar(20), bar(21), bar(22))):
            await desk.bars(one)
            await desk.concluded(number + 1)
        await desk.until(worker.prewarmer._idle.is_set)
    assert [outcome for outcome, _ in await desk.outcomes()].count(Outcome.FAILED) == 1
    # The prefix of the symbol that was asked about when it was back is there already.
    sent = [ids for ids in engine.warmed[before:] if ids.tolist() == engine.requests[0].input_ids[: ids.size].tolist()]
    assert sent != []


async def test_no_two_signals_of_a_symbol_carry_one_id() -> None:
    desk = await Desk.open(ScriptedEngine([HOLD]), min_bars=1, deep_every_bars=1)
    async with desk.running():
        for slot in range(4):
            await desk.bars(bar(slot))
        await desk.until(lambda: desk.worker.accounts.triggers == 8)
        await desk.until(lambda: desk.worker._rooms.partitions.watermarks.unfinished == 0)
    signals: list[Signal] = await desk.signals()
    assert len({one.signal_id for one in signals}) == len(signals)
    await sums_close(desk, 4)


async def test_a_partition_count_that_is_not_what_it_was_is_refused() -> None:
    desk = await Desk.open()
    async with desk.running():
        await desk.until(lambda: len(desk.group.committed) == 4)
    for partition, held in desk.group.committed.items():
        assert decode_metadata(held.metadata) == CommitMetadata(0, 0, 2)
        desk.group.committed[partition] = Committed(held.offset, encode_metadata((0, 0), 1))
    # As it would be had the topics had one partition then: the second has no commit of its own to tell by.
    del desk.group.committed[TopicPartition(MARKET, 1)], desk.group.committed[TopicPartition(VISION, 1)]
    await desk.history()
    desk.start()
    with pytest.raises(ExceptionGroup) as caught:
        await desk.ended()
    assert caught.group_contains(PartitionsChangedError, match="had 1 partitions when this group last committed and have 2 now")
    explained = explain(caught.value)
    assert explained is not None
    assert explained[0] == 1
    assert await desk.audit() == []
