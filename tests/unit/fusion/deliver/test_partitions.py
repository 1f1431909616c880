"""When a partition has caught up with the log that its worker found, and what is asked before: nothing."""

from __future__ import annotations

import pytest

from services.core.bus import Record, TopicPartition
from services.core.bus.memory_group import MemoryConsumer
from services.fusion.deliver.history import PartitionHistory
from services.fusion.deliver.partitions import Partitions
from services.fusion.deliver.recovery import Takeover
from tests.unit.fusion.build import MARKET, VISION, bar
from tests.unit.fusion.desk import HOLD, Desk, ScriptedEngine

LOG = 18


async def test_nothing_is_asked_before_all_is_read_that_the_log_held_however_slowly_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that returns three records, then none for six polls, then three again."""
    poll, polls = MemoryConsumer.poll, 0

    async def slow(self: MemoryConsumer, *, timeout_ms: int, max_records: int = 500) -> list[Record]:
        nonlocal polls
        polls += 1
        del timeout_ms, max_records
        return await poll(self, timeout_ms=0, max_records=3) if polls % 7 == 0 else []

    monkeypatch.setattr(MemoryConsumer, "poll", slow)
    desk = await Desk.open(ScriptedEngine([HOLD]), min_bars=1)
    await desk.bars(*(bar(slot) for slot in range(LOG)))
    async with desk.running():
        await desk.concluded(LOG)
    signals = await desk.signals()
    assert [one.as_of.market.offset for one in signals] == [LOG - 1]


def test_offsets_without_records_at_a_logs_end_do_not_keep_a_partition_behind() -> None:
    partitions = Partitions((MARKET, VISION), ("signals", "audit"))
    market, vision = partitions.of(0)
    owned = partitions.add(0)
    partitions.taken_over(owned, Takeover(0, {market: 3, vision: 5}, {market: 9, vision: 5}, (0, 0), (0, 0), PartitionHistory()))
    positions: dict[TopicPartition, int | None] = {market: None, vision: 5}
    for position, caught_up in ((None, False), (3, False), (8, False), (9, True)):
        positions[market] = position
        partitions.folded_up_to(positions.__getitem__)
        assert partitions.caught_up == caught_up, position
