"""What producers, readers and admins promise, over memory and over a real Kafka."""

from __future__ import annotations

import pytest

from services.core.bus import BusError, NewTopic, Position, Record, TopicPartition
from tests.integration.bus.support import Site, out_of_range, take

KEYS = [f"SYM{number}.XNAS".encode() for number in range(8)]
MURMUR2 = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}
"""Keys and their hashes from Kafka's own tests of its Java client (UtilsTest)."""


async def test_records_of_one_key_keep_their_order(site: Site) -> None:
    topic = await site.topic(partitions=4)
    producer = await site.producer()
    for number in range(200):
        await producer.send(topic, key=KEYS[number % len(KEYS)], value=str(number).encode())
    await producer.flush()
    reader = await site.reader()
    await reader.read({TopicPartition(topic, partition): 0 for partition in range(4)})
    records = await take(reader, 200)
    for key in KEYS:
        numbers = [int(record.value or b"") for record in records if record.key == key]
        assert sorted(numbers) == numbers
        assert len(numbers) == 25


async def test_a_key_goes_to_the_partition_that_murmur2_gives_it_on_every_bus(site: Site) -> None:
    topic = await site.topic(partitions=6)
    producer = await site.producer()
    placed = {key: (await (await producer.send(topic, key=key, value=b""))).partition for key in MURMUR2}
    assert {key: (number & 0x7FFFFFFF) % 6 for key, number in MURMUR2.items()} == placed


async def test_an_acknowledgement_says_where_the_record_is(site: Site) -> None:
    topic = await site.topic()
    first, second = await site.fill(topic, 2)
    reader = await site.reader()
    await reader.read({TopicPartition(topic, 0): 0})
    records = await take(reader, 2)
    assert [Position(*place) for place in (first, second)] == [
        Position(record.topic, record.partition, record.offset, record.timestamp_ms) for record in records
    ]
    assert [first.offset, second.offset] == [0, 1]


async def test_headers_and_tombstones_come_back_as_they_were_sent(site: Site) -> None:
    topic = await site.topic()
    producer = await site.producer()
    headers = (("traceparent", b"00-1"), ("empty", b""))
    await (await producer.send(topic, key=b"k", value=None, headers=headers))
    reader = await site.reader()
    await reader.read({TopicPartition(topic, 0): 0})
    [record] = await take(reader, 1)
    assert isinstance(record, Record)
    assert (b"k", None, headers) == (record.key, record.value, record.headers)


async def test_a_record_of_neither_key_nor_value_is_sent_as_it_is_and_holds_nobody_up(site: Site) -> None:
    topic = await site.topic()
    producer = await site.producer(delivery_timeout_ms=10_000)
    for key in (None, b"k"):
        await (await producer.send(topic, key=key, value=None))
    reader = await site.reader()
    await reader.read({TopicPartition(topic, 0): 0})
    assert [(record.key, record.value) for record in await take(reader, 2)] == [(None, None), (b"k", None)]


async def test_create_time_is_the_producers_and_append_time_is_not(site: Site) -> None:
    by_producer = await site.topic("candles", config={"message.timestamp.type": "CreateTime"})
    by_broker = await site.topic("features")
    producer = await site.producer()
    then_ms = 1_500_000_000_000
    kept = [await (await producer.send(by_producer, key=b"k", value=b"", timestamp_ms=then_ms + n)) for n in range(3)]
    stamped = await (await producer.send(by_broker, key=b"k", value=b"", timestamp_ms=then_ms))
    assert [then_ms, then_ms + 1, then_ms + 2] == [place.timestamp_ms for place in kept]
    assert stamped.timestamp_ms > then_ms


async def test_a_reader_finds_beginning_end_and_times(site: Site) -> None:
    topic = await site.topic(config={"message.timestamp.type": "CreateTime"})
    producer = await site.producer()
    for at_ms in (1_000, 3_000, 2_000, 5_000):
        await (await producer.send(topic, key=b"k", value=b"", timestamp_ms=1_500_000_000_000 + at_ms))
    reader = await site.reader()
    one = TopicPartition(topic, 0)
    assert {one: 0} == await reader.beginning_offsets([one])
    assert {one: 4} == await reader.end_offsets([one])
    asked = {0: 0, 1_000: 0, 1_001: 1, 3_001: 3, 5_001: None}
    for at_ms, offset in asked.items():
        assert {one: offset} == await reader.offsets_for_times({one: 1_500_000_000_000 + at_ms})


async def test_a_reader_goes_on_from_its_position_and_reads_elsewhere_when_told(site: Site) -> None:
    topic = await site.topic()
    await site.fill(topic, 10)
    reader = await site.reader()
    one = TopicPartition(topic, 0)
    await reader.read({one: 4})
    assert reader.position(one) == 4
    assert [record.value for record in await take(reader, 2)] == [b"4", b"5"]
    assert reader.position(one) == 6
    await reader.read({one: 9})
    assert [record.value for record in await take(reader, 1)] == [b"9"]
    assert await reader.poll(timeout_ms=0) == []
    await reader.read({})
    assert await reader.poll(timeout_ms=1) == []
    with pytest.raises(BusError, match="does not read"):
        reader.position(one)


async def test_reading_what_was_truncated_says_how_much_is_gone(site: Site) -> None:
    topic = await site.topic()
    await site.fill(topic, 7)
    await site.admin.truncate([topic])
    reader = await site.reader()
    one = TopicPartition(topic, 0)
    assert {one: 7} == await reader.beginning_offsets([one])
    await reader.read({one: 2})
    assert {one: 5} == (await out_of_range(reader)).missing
    await reader.read({one: 11})
    assert {one: 4} == (await out_of_range(reader)).missing
    [place] = await site.fill(topic, 1)
    assert place.offset == 7


async def test_creating_twice_changes_nothing(site: Site) -> None:
    topic = await site.topic(partitions=3, config={"max.message.bytes": "300000"})
    await site.fill(topic, 1)
    await site.admin.create([NewTopic(topic, 5, {})])
    info = (await site.admin.describe([topic, site.name("absent")]))[topic]
    assert (topic, 3, "300000") == (info.name, info.partitions, info.config["max.message.bytes"])
    assert info.config["message.timestamp.type"] == "LogAppendTime"


async def test_topics_that_do_not_exist_are_left_out_and_not_created(site: Site) -> None:
    absent = site.name("absent")
    producer = await site.producer()
    reader = await site.reader()
    with pytest.raises(BusError, match="does not exist"):
        await (await producer.send(absent, key=b"k", value=b""))
    with pytest.raises(BusError, match="does not exist"):
        await reader.end_offsets([TopicPartition(absent, 0)])
    with pytest.raises(BusError, match="does not exist"):
        await reader.read({TopicPartition(absent, 0): 0})
    with pytest.raises(BusError, match="does not exist"):
        await site.member([absent])
    with pytest.raises(BusError, match="does not exist"):
        await site.admin.truncate([absent])
    assert await site.admin.describe([absent]) == {}


async def test_a_partition_that_does_not_exist_is_refused(site: Site) -> None:
    topic = await site.topic(partitions=2)
    reader = await site.reader()
    with pytest.raises(BusError, match="has partitions 0 to 1, and no 2"):
        await reader.end_offsets([TopicPartition(topic, 2)])


async def test_a_record_that_is_too_large_is_refused_and_the_producer_goes_on(site: Site) -> None:
    topic = await site.topic(config={"max.message.bytes": "20000"})
    producer = await site.producer()
    for size in (30_000, 3_000_000):
        with pytest.raises(BusError, match="large"):
            await (await producer.send(topic, key=b"k", value=b"x" * size))
    place = await (await producer.send(topic, key=b"k", value=b"small"))
    assert place.offset == 0


async def test_a_closed_producer_has_sent_everything_and_takes_no_more(site: Site) -> None:
    topic = await site.topic()
    producer = await site.producer()
    for number in range(100):
        await producer.send(topic, key=b"k", value=str(number).encode())
    await producer.close()
    reader = await site.reader()
    assert {TopicPartition(topic, 0): 100} == await reader.end_offsets([TopicPartition(topic, 0)])
    with pytest.raises(BusError, match="closed"):
        await producer.send(topic, key=b"k", value=b"")
