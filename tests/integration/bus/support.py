"""What the contract's tests are written with: a site of topics and groups of its own, members that poll, a listener that notes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from services.core.bus import (
    Admin,
    Bus,
    Committed,
    Consumer,
    NewTopic,
    OffsetOutOfRangeError,
    Position,
    Producer,
    Reader,
    Record,
    TopicPartition,
)

PATIENCE_S = 30.0


@dataclass
class Listener:
    """Notes what it is told; `on_assigned` seeks to `starts`."""

    starts: Mapping[TopicPartition, int] = field(default_factory=dict)
    assigned: list[frozenset[TopicPartition]] = field(default_factory=list)
    revoked: list[frozenset[TopicPartition]] = field(default_factory=list)
    member: Consumer | None = None

    async def on_assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """Seek where told."""
        assert self.member is not None
        for partition in partitions & self.starts.keys():
            self.member.seek(partition, self.starts[partition])
        self.assigned.append(partitions)

    async def on_revoked(self, partitions: frozenset[TopicPartition]) -> None:
        """Note it."""
        self.revoked.append(partitions)


@dataclass
class Site:
    """One bus with topics and groups that no other test uses."""

    bus: Bus
    admin: Admin
    unique: str
    closing: list[Consumer | Producer | Reader] = field(default_factory=list)

    def name(self, text: str) -> str:
        """Return `text` made unique."""
        return f"{self.unique}-{text}"

    async def topic(self, text: str = "topic", partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
        """Create a topic and return its name."""
        name = self.name(text)
        await self.admin.create([NewTopic(name, partitions, {"message.timestamp.type": "LogAppendTime", **(config or {})})])
        return name

    async def producer(self, delivery_timeout_ms: int = 30_000, before_write: Callable[[], None] = lambda: None) -> Producer:
        """Return a producer."""
        producer = await self.bus.producer(
            client_id=self.name("producer"), delivery_timeout_ms=delivery_timeout_ms, before_write=before_write
        )
        self.closing.append(producer)
        return producer

    async def reader(self) -> Reader:
        """Return a reader."""
        reader = await self.bus.reader(client_id=self.name("reader"))
        self.closing.append(reader)
        return reader

    async def member(
        self,
        topics: Sequence[str],
        listener: Listener | None = None,
        client_id: str = "member",
        instance_id: str | None = None,
    ) -> Consumer:
        """Return a started member of this site's group."""
        member = await self.bus.consumer(group=self.name("group"), client_id=client_id, instance_id=instance_id)
        self.closing.append(member)
        listener = listener or Listener()
        listener.member = member
        await member.start(topics, listener)
        return member

    async def fill(self, topic: str, count: int, key: bytes = b"k") -> list[Position]:
        """Append `count` records with the values 0, 1, ... and return where they are."""
        producer = await self.producer()
        acknowledgements = [await producer.send(topic, key=key, value=str(number).encode()) for number in range(count)]
        return [await acknowledgement for acknowledgement in acknowledgements]

    async def close(self) -> None:
        """Close everything that the test asked for."""
        for one in reversed(self.closing):
            await one.close()
        await self.admin.close()
        await self.bus.close()


async def take(source: Reader | Consumer, count: int) -> list[Record]:
    """Return the next `count` records."""
    records: list[Record] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(records) < count:
            records += await source.poll(timeout_ms=200, max_records=count - len(records))
    return records


async def poll_until(condition: Callable[[], bool], *members: Consumer) -> list[Record]:
    """Poll all members until `condition` holds; return what came."""
    records: list[Record] = []
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            for batch in await asyncio.gather(*(member.poll(timeout_ms=50) for member in members)):
                records += batch
    return records


async def out_of_range(source: Reader | Consumer) -> OffsetOutOfRangeError:
    """Poll until the source says that it is out of range, and return what it says."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                records = await source.poll(timeout_ms=200)
            except OffsetOutOfRangeError as error:
                return error
            assert records == [], "nothing is returned from a place that is gone"


def at(offset: int, metadata: str = "") -> Committed:
    """Return what to commit."""
    return Committed(offset, metadata)
