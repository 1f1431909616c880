"""Bounded reads of topics end where they were told to end, over memory and over a real Kafka."""

from __future__ import annotations

import pytest

from services.core.bus import BusError, TopicPartition
from services.core.bus.topic_reader import TimeRange, offsets_within, partitions_of, read_offsets, read_within
from tests.integration.bus.support import Site

AS_TOLD = {"message.timestamp.type": "CreateTime", "retention.ms": "-1"}
"""The times are of 1970: a broker that keeps records for days deletes them as soon as it looks."""


async def _fill(site: Site, topic: str, times_ms: list[int]) -> None:
    producer = await site.producer()
    for number, at_ms in enumerate(times_ms):
        await (await producer.send(topic, key=f"{number}".encode(), value=f"{number}".encode(), timestamp_ms=at_ms))


async def test_a_range_of_append_times_is_read_with_its_first_and_without_its_last(site: Site) -> None:
    topic = await site.topic(config=AS_TOLD)
    await _fill(site, topic, [1_000, 2_000, 3_000, 4_000])
    reader = await site.reader()

    async def read(times: TimeRange) -> list[bytes | None]:
        return [record.value async for record in read_within(site.bus, reader, topic, times)]

    assert await read(TimeRange()) == [b"0", b"1", b"2", b"3"]
    assert await read(TimeRange(2_000, 4_000)) == [b"1", b"2"]
    assert await read(TimeRange(since_ms=4_001)) == []
    assert await read(TimeRange(until_ms=1_000)) == []


async def test_offsets_of_several_partitions_are_read_each_to_its_end_and_progress_reaches_the_total(site: Site) -> None:
    topic = await site.topic(partitions=3)
    await _fill(site, topic, [0] * 60)
    reader = await site.reader()
    partitions = await partitions_of(site.bus, topic)
    assert partitions == [TopicPartition(topic, number) for number in range(3)]
    offsets = await offsets_within(reader, partitions, TimeRange())
    await _fill(site, topic, [0] * 30)  # appended meanwhile: not read
    told: list[tuple[int, int]] = []
    records = [record async for record in read_offsets(reader, offsets, lambda done, total: told.append((done, total)))]
    assert len(records) == 60
    for tp, wanted in offsets.items():
        assert [record.offset for record in records if record.partition == tp.partition] == list(wanted)
    assert told[-1] == (60, 60)


async def test_an_empty_range_asks_for_no_record(site: Site) -> None:
    topic = await site.topic()
    reader = await site.reader()
    assert [record async for record in read_offsets(reader, {TopicPartition(topic, 0): range(0)})] == []


async def test_a_topic_that_does_not_exist_is_named_with_what_to_do(site: Site) -> None:
    with pytest.raises(BusError, match="aquiline topics create"):
        await partitions_of(site.bus, site.name("nothing"))


async def test_a_reader_that_has_read_nothing_closes(site: Site) -> None:
    reader = await site.bus.reader(client_id="idle")
    await reader.close()
