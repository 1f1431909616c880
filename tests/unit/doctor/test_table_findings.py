"""The doctor reads notes and positions as a worker does, and names what it would refuse."""

from __future__ import annotations

from services.core.bus.memory import MemoryBus
from services.core.clock import VirtualClock
from services.core.topic_admin import ensure_topics
from services.doctor.table_findings import table_findings
from tests.unit.fusion import build
from tests.unit.fusion.build import MODE, START, SYMBOL
from tests.unit.fusion.inputs.build import NOTES, POSITIONS, note, position


async def test_records_that_workers_refuse_are_counted_and_the_last_is_named() -> None:
    bus = MemoryBus(VirtualClock(START))
    admin = await bus.admin()
    await ensure_topics(admin, MODE, 1)
    producer = await bus.producer(client_id="test")
    for topic, key, value in (
        (NOTES, SYMBOL, note().encode()),
        (NOTES, "*", note().encode()),
        (POSITIONS, SYMBOL, position().encode()),
        (POSITIONS, SYMBOL, None),
    ):
        await (await producer.send(topic, key=key.encode(), value=value))
    infos = await admin.describe([NOTES, POSITIONS])
    notes, positions = await table_findings(bus, build.settings(), infos)
    assert (positions.level, positions.sentence) == ("ok", "all 2 can be used")
    assert notes.level == "warn"
    assert notes.sentence.startswith("1 of 2 are refused by every worker, the last: offset 1: key_mismatch")


async def test_topics_that_do_not_exist_have_no_finding() -> None:
    assert await table_findings(MemoryBus(VirtualClock(START)), build.settings(), {}) == []
