"""What members promise of records whose schema the registry has not given yet, over memory and over a real Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from schemas import Topic
from services.core.bus import BusError, Record, TopicPartition, schema_registry
from services.core.bus.connect import connect
from services.core.clock import SystemClock
from services.core.settings import BusSettings
from services.core.topic_settings import TopicSettings
from tests.integration.bus.support import Listener, Site, at, poll_until, take
from tests.unit.core.bus.registry import Registry, header

FIRST, LATER = 5, 4
"""Records that wait for their schema, and records that are appended afterwards."""


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    found = Registry()
    found.add(1, {"type": "object"}, schemaType="JSON")
    async with found.serving():
        yield found


@pytest.fixture
async def decoding(bus_settings: BusSettings, registry: Registry, unique: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    """Return a site whose topic is in JSON Schema; a poll gives a registry that is down up at once."""
    monkeypatch.setattr(schema_registry, "_GIVE_UP_S", 0.0)
    names = {Topic.NOTES: f"{unique}-topic"}
    topics = TopicSettings(names=names, decoders={Topic.NOTES: "json_schema"}, registry_url=registry.url)
    bus = connect(bus_settings, SystemClock(), topics)
    site = Site(bus, await bus.admin(), unique)
    yield site
    await site.close()


async def topic_of(site: Site, partitions: int = 1) -> str:
    await site.topic(partitions=partitions)
    return Topic.NOTES.value


async def fill(site: Site, topic: str, first: int, count: int, partition: int = 0) -> None:
    producer = await site.producer()
    for number in range(first, first + count):
        await (await producer.send(topic, key=b"k", value=header(1) + b'{"n":%d}' % number, partition=partition))


def numbers(records: list[Record]) -> list[bytes | None]:
    return [record.value for record in records]


def expected(count: int) -> list[bytes | None]:
    return [b'{"n":%d}' % number for number in range(count)]


@dataclass
class Positions(Listener):
    """Notes the positions when partitions are revoked, and commits them."""

    seen: dict[TopicPartition, int | None] = field(default_factory=dict)

    async def on_revoked(self, partitions: frozenset[TopicPartition]) -> None:
        """Note and commit the positions."""
        assert self.member is not None
        self.seen |= {one: self.member.position(one) for one in partitions}
        await self.member.commit({one: at(offset) for one in partitions if (offset := self.member.position(one)) is not None})
        await super().on_revoked(partitions)


async def wait_for_schema(registry: Registry, listener: Listener) -> None:
    """Poll until records have come whose schema the registry, which is down, does not give."""
    assert listener.member is not None
    registry.down = True
    async with asyncio.timeout(30):
        while True:
            try:
                assert await listener.member.poll(timeout_ms=200) == []
            except BusError:
                return


async def test_what_waits_for_its_schema_when_its_partition_is_paused_comes_when_it_is_resumed_before_what_came_later(
    decoding: Site, registry: Registry
) -> None:
    topic = await topic_of(decoding)
    one = TopicPartition(topic, 0)
    listener = Listener(starts={one: 0})
    member = await decoding.member([topic], listener)
    await fill(decoding, topic, 0, FIRST)
    await wait_for_schema(registry, listener)
    assert member.position(one) == 0
    member.pause([one])
    registry.down = False
    await fill(decoding, topic, FIRST, LATER)
    for _ in range(3):
        assert await member.poll(timeout_ms=100) == []
        assert member.position(one) == 0
    member.resume([one])
    assert numbers(await take(member, FIRST + LATER)) == expected(FIRST + LATER)
    assert member.position(one) == FIRST + LATER


async def test_a_paused_partition_whose_schema_is_unknown_does_not_hold_up_the_others(decoding: Site, registry: Registry) -> None:
    topic = await topic_of(decoding, partitions=2)
    paused, other = TopicPartition(topic, 0), TopicPartition(topic, 1)
    listener = Listener(starts={paused: 0, other: 0})
    member = await decoding.member([topic], listener)
    await fill(decoding, topic, 0, FIRST)
    await wait_for_schema(registry, listener)
    member.pause([paused])
    assert await member.poll(timeout_ms=100) == []
    registry.down = False
    await fill(decoding, topic, 0, LATER, partition=1)
    assert numbers(await take(member, LATER)) == expected(LATER)
    assert (member.position(paused), member.position(other)) == (0, LATER)


async def test_what_waits_for_its_schema_when_its_partition_is_revoked_goes_to_the_member_that_takes_it_over(
    decoding: Site, registry: Registry
) -> None:
    topic = await topic_of(decoding, partitions=2)
    both = [TopicPartition(topic, number) for number in range(2)]
    listener, following = Positions(starts=dict.fromkeys(both, 0)), Listener()
    member = await decoding.member([topic], listener, client_id="member-0")
    for one in both:
        await fill(decoding, topic, 0, FIRST, partition=one.partition)
    await wait_for_schema(registry, listener)
    second = await decoding.member([topic], following, client_id="member-1")
    records: dict[str, list[Record]] = {"first": [], "second": []}
    registry.down = False
    listener.starts = {}
    async with asyncio.timeout(60):
        while sum(map(len, records.values())) < 2 * FIRST or not following.assigned or len(listener.assigned) < 2:
            if len(listener.revoked) == 1 and not records["first"]:
                assert listener.seen == dict.fromkeys(both, 0), "the listener sees what was not returned yet"
            for name, polled_by in (("first", member), ("second", second)):
                if name == "second" or listener.revoked:
                    records[name] += await polled_by.poll(timeout_ms=50)
    for polled, held in ((records["first"], member.assignment()), (records["second"], second.assignment())):
        assert {TopicPartition(record.topic, record.partition) for record in polled} == set(held)
        assert numbers(polled) == expected(FIRST)


async def test_a_poll_that_decodes_while_its_partition_is_paused_returns_nothing_of_it(decoding: Site, registry: Registry) -> None:
    topic = await topic_of(decoding)
    one = TopicPartition(topic, 0)
    listener = Listener(starts={one: 0})
    member = await decoding.member([topic], listener)
    await poll_until(lambda: len(listener.assigned) == 1, member)
    registry.held.clear()
    await fill(decoding, topic, 0, FIRST)
    polling = asyncio.create_task(member.poll(timeout_ms=200))
    async with asyncio.timeout(30):
        while not registry.asked:
            await asyncio.sleep(0)
            if polling.done():
                polling = asyncio.create_task(member.poll(timeout_ms=200))
    member.pause([one])
    registry.held.set()
    assert await polling == []
    assert member.position(one) == 0
    member.resume([one])
    assert numbers(await take(member, FIRST)) == expected(FIRST)


async def test_a_poll_returns_no_more_than_it_was_asked_for(decoding: Site, registry: Registry) -> None:
    topic = await topic_of(decoding)
    one = TopicPartition(topic, 0)
    listener = Listener(starts={one: 0})
    member = await decoding.member([topic], listener)
    await fill(decoding, topic, 0, FIRST)
    await wait_for_schema(registry, listener)
    registry.down = False
    first = await member.poll(timeout_ms=1_000, max_records=2)
    assert numbers(first) == expected(2)
    assert member.position(one) == 2
    assert numbers(await take(member, FIRST - 2)) == expected(FIRST)[2:]
