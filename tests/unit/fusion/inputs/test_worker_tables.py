"""A worker with notes and positions: what the model is shown, what stops a decision, and what a takeover reads."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest

from schemas import CancelReason, Outcome, Topic, topic_name
from services.core.bus import BusError, Committed, TopicPartition
from services.core.bus.memory import MemoryBus
from services.core.global_tables import GlobalTables
from services.core.topic_admin import ensure_topics, wanted_topics
from services.fusion.deliver.recovery import Recovery
from services.fusion.inputs.tables import Tables
from tests.unit.fusion import build
from tests.unit.fusion.build import MARKET, MODE, START, SYMBOL, VISION, bar
from tests.unit.fusion.desk import BUY, EXIT, HOLD, NOW, Desk, ScriptedEngine
from tests.unit.fusion.inputs.build import NOTES, note, position
from tests.unit.fusion.log import Folder, taken_over

HOUR = 3_600_000


def asked(desk: Desk, number: int = -1) -> str:
    return build.tokenizer().decode(desk.engine.requests[number].input_ids)


async def test_notes_and_positions_are_in_the_prompt_and_their_offsets_on_the_signal_and_the_audit() -> None:
    desk = await Desk.open(ScriptedEngine([HOLD]), min_bars=1)
    await desk.send(Topic.NOTES, note("guidance raised", ts_ms=NOW), note("of another", symbol="ETH-USD.CBSE", ts_ms=NOW))
    await desk.send(Topic.POSITIONS, position(ts_ms=NOW))
    async with desk.running():
        await desk.bars(bar(0))
        await desk.concluded(1)
        assert 'desk: "guidance raised"' in asked(desk)
        assert "of another" not in asked(desk)
        assert "Position held: long 100 at 99.50 USD." in asked(desk)
        [signal], [audit] = await desk.signals(), await desk.audit()
        assert signal.as_of == audit.as_of
        assert signal.as_of.tables is not None
        assert {name: (ref.topic, ref.offset) for name, ref in signal.as_of.tables.items()} == {
            "notes": (NOTES, 0),
            "positions": (topic_name(Topic.POSITIONS, MODE), 0),
        }
        # What comes while the worker runs is in the next prompt, and a position that ended is not.
        await desk.send(Topic.NOTES, note("guidance cut", symbol="*", ts_ms=NOW))
        await desk.send_raw(Topic.POSITIONS, SYMBOL.encode(), None)
        await desk.worker.catch_up_tables()
        await desk.bars(bar(1))
        await desk.concluded(2)
    assert 'desk on all symbols: "guidance cut"' in asked(desk)
    assert "Position held" not in asked(desk)
    last = (await desk.signals())[-1].as_of.tables
    assert last is not None
    assert {name: ref.offset for name, ref in last.items()} == {"notes": 2}


async def test_a_signal_without_notes_and_positions_says_nothing_of_them() -> None:
    desk = await Desk.open(ScriptedEngine([HOLD]), min_bars=1)
    async with desk.running():
        await desk.bars(bar(0))
        await desk.concluded(1)
    [record] = await desk.read(Topic.STRATEGY_SIGNALS)
    assert set(orjson.loads(record.value or b"")["as_of"]) == {"market"}


async def test_a_blackout_blocks_with_its_reason_and_the_model_is_not_asked() -> None:
    desk = await Desk.open(ScriptedEngine([BUY]), min_bars=1)
    await desk.send(Topic.NOTES, note("rate decision", symbol="*", source="calendar", ts_ms=NOW, blackout=(NOW - 1, NOW + HOUR)))
    async with desk.running():
        await desk.bars(bar(0))
        [audit] = await desk.concluded(1)
        assert (audit.outcome, audit.reason) == (Outcome.BLOCKED, "blackout")
        assert "calendar announced a blackout of all symbols" in audit.detail
        assert desk.engine.requests == []
        desk.clock.advance_to(NOW + HOUR)
        await desk.worker.catch_up_tables()
        await desk.bars(bar(1))
        assert (await desk.concluded(2))[-1].outcome is Outcome.PUBLISHED


async def test_a_blackout_that_begins_while_the_model_answers_blocks_its_answer() -> None:
    desk = await Desk.open(ScriptedEngine([lambda: desk.clock.advance_to(NOW + 200), BUY]), min_bars=1)
    await desk.send(Topic.NOTES, note(ts_ms=NOW, blackout=(NOW + 200, NOW + HOUR)))
    async with desk.running():
        await desk.bars(bar(0))
        [audit] = await desk.concluded(1)
    assert audit.outcome in {Outcome.BLOCKED, Outcome.STALE}
    assert await desk.signals() == []


async def test_a_signal_is_valid_no_longer_than_until_the_next_blackout_begins() -> None:
    desk = await Desk.open(ScriptedEngine([BUY]), min_bars=1)
    await desk.send(Topic.NOTES, note(ts_ms=NOW, blackout=(NOW + 1_000, NOW + HOUR)))
    async with desk.running():
        await desk.bars(bar(0))
        [signal] = await desk.published(1)
    assert signal.valid_until_ms == NOW + 1_000


@pytest.mark.parametrize("symbol", [SYMBOL, "*"])
async def test_a_blackout_that_holds_at_once_cancels_what_is_open(symbol: str) -> None:
    desk = await Desk.open(ScriptedEngine([BUY]), min_bars=1)
    async with desk.running():
        await desk.bars(bar(0))
        [signal] = await desk.published(1)
        await desk.concluded(1)
        await desk.send(Topic.NOTES, note(symbol=symbol, ts_ms=NOW, blackout=(NOW, NOW + HOUR)))
        await desk.worker.catch_up_tables()
        await desk.worker.settle()
        [cancel] = await desk.cancels()
    assert (cancel.signal_id, cancel.reason, cancel.detail) == (signal.signal_id, CancelReason.HALTED, "blackout announced by desk")


async def test_an_exit_of_nothing_is_blocked_where_positions_are_reported_and_published_with_one() -> None:
    desk = await Desk.open(ScriptedEngine([EXIT]), min_bars=1)
    await desk.send(Topic.POSITIONS, position(symbol="ETH-USD.CBSE", ts_ms=NOW))
    async with desk.running():
        await desk.bars(bar(0))
        [audit] = await desk.concluded(1)
        assert (audit.outcome, audit.reason) == (Outcome.BLOCKED, "no_position")
        await desk.send(Topic.POSITIONS, position(ts_ms=NOW))
        await desk.worker.catch_up_tables()
        await desk.bars(bar(1))
        assert (await desk.concluded(2))[-1].outcome is Outcome.PUBLISHED


async def test_records_that_cannot_be_used_stop_nothing() -> None:
    desk = await Desk.open(ScriptedEngine([HOLD]), min_bars=1)
    await desk.send_raw(Topic.NOTES, b"*", b"no note")
    await desk.send_raw(Topic.POSITIONS, SYMBOL.encode(), b"{}")
    await desk.send(Topic.NOTES, note("still read", ts_ms=NOW))
    async with desk.running():
        await desk.bars(bar(0))
        await desk.concluded(1)
    assert "still read" in asked(desk)


async def test_a_worker_does_without_the_optional_topics() -> None:
    desk = Desk(ScriptedEngine([HOLD]), min_bars=1)
    admin = await desk.bus.admin()
    optional = {topic_name(topic, MODE) for topic in (Topic.NOTES, Topic.POSITIONS)}
    await admin.create([new for new in wanted_topics(MODE, 2) if new.name not in optional])
    await desk.send(Topic.INSTRUMENTS, build.instrument())
    async with desk.running():
        await desk.bars(bar(0))
        assert (await desk.concluded(1))[0].outcome is Outcome.PUBLISHED


async def test_notes_on_several_partitions_are_refused_with_the_mend() -> None:
    desk = Desk(min_bars=1)
    admin = await desk.bus.admin()
    await admin.create([replace(new, partitions=3) if new.name == NOTES else new for new in wanted_topics(MODE, 2)])
    desk.start()
    with pytest.raises(BusError, match="has 3 partitions and must have 1"):
        await desk.ended()
    assert desk.engine.closed


async def test_a_takeover_reads_the_tables_on_to_where_they_end() -> None:
    folder = Folder(build.settings())
    bus = MemoryBus(folder.clock)
    await ensure_topics(await bus.admin(), MODE, 1)
    tables = Tables(folder.settings)
    reader = GlobalTables(bus, folder.clock, [NOTES], tables.take, "tables")
    await reader.start()
    producer = await bus.producer(client_id="test")
    await (await producer.send(NOTES, key=SYMBOL.encode(), value=note(ts_ms=START).encode()))
    assert tables.as_of(SYMBOL) is None
    committed = {TopicPartition(topic, 0): Committed(0, "a2:0:0:1") for topic in (MARKET, VISION)}
    await taken_over(Recovery(bus, folder.settings, folder.clock, folder.intake, folder.books, tables=reader), committed)
    assert tables.as_of(SYMBOL) is not None


async def test_mode_flash_is_shown_notes_and_positions_too() -> None:
    engine = ScriptedEngine([HOLD])
    engine.logprobs = [-1.0, -2.0, -3.0, -4.0]
    desk = await Desk.open(engine, min_bars=1, mode="flash", rationale="none")
    await desk.send(Topic.NOTES, note("guidance raised", ts_ms=NOW))
    await desk.send(Topic.POSITIONS, position(ts_ms=NOW))
    async with desk.running():
        await desk.bars(bar(0))
        await desk.concluded(1)
    lines = asked(desk).splitlines()
    assert sum('desk: "guidance raised"' in line for line in lines) == 1
    assert sum("Position held: long 100 at 99.50 USD." in line for line in lines) == 1
