"""A bus with topics, and what a test does to a service that folds candles there: shared by the tests of such services."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from schemas import Candle, Instrument, InstrumentEvent, MarketFeatures, RunMode, Topic, VisionFeatures, topic_name
from services.core.bus import Bus, NewTopic, Record, TopicPartition
from services.core.lifecycle import Service

PARTITIONS = 4
MODE = RunMode.DEMO
TOPICS = {topic: topic_name(topic, MODE) for topic in Topic}


S = TypeVar("S", bound=Service)
F = TypeVar("F", MarketFeatures, VisionFeatures)


class Desk(ABC, Generic[S, F]):
    """A bus with the topics of a test, and what a test does to it."""

    target: Topic
    output: type[F]
    instruments: Sequence[Instrument]

    def __init__(self, bus: Bus) -> None:
        self.bus = bus

    @abstractmethod
    def service(self) -> S:
        """Return a member of the group."""

    async def set_up(self) -> None:
        admin = await self.bus.admin()
        used = [
            (Topic.CANDLES, PARTITIONS),
            (self.target, PARTITIONS),
            (Topic.INSTRUMENTS, 1),
            (Topic.INSTRUMENT_EVENTS, 1),
            (Topic.DEAD_LETTERS, 1),
        ]
        there = await admin.describe([TOPICS[topic] for topic, _ in used])
        # Without compaction, unlike the real ones: a compacted topic cannot be emptied between tests.
        await admin.create([NewTopic(TOPICS[topic], partitions, {}) for topic, partitions in used])
        await admin.truncate(list(there))
        await admin.close()
        await self.publish(Topic.INSTRUMENTS, self.instruments)

    async def publish(self, topic: Topic, messages: Sequence[Candle | Instrument | InstrumentEvent]) -> None:
        await self.publish_raw(topic, [(one.symbol.encode(), one.encode()) for one in messages])

    async def publish_raw(self, topic: Topic, pairs: Sequence[tuple[bytes | None, bytes | None]]) -> None:
        producer = await self.bus.producer(client_id="test")
        acks = [await producer.send(TOPICS[topic], key=key, value=value) for key, value in pairs]
        await asyncio.gather(*acks)
        await producer.close()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[S]:
        service = self.service()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(service.run())
            yield service
            service.stop()

    async def read(self, topic: Topic) -> list[Record]:
        admin, reader = await self.bus.admin(), await self.bus.reader(client_id="test")
        info = (await admin.describe([TOPICS[topic]]))[TOPICS[topic]]
        partitions = [TopicPartition(info.name, number) for number in range(info.partitions)]
        ends = await reader.end_offsets(partitions)
        await reader.read(await reader.beginning_offsets(partitions))
        records: list[Record] = []
        while any(reader.position(partition) < end for partition, end in ends.items()):
            records += await reader.poll(timeout_ms=200)
        await reader.close()
        await admin.close()
        return records

    async def features(self) -> dict[str, list[F]]:
        """Return what was published, by symbol, in order."""
        found: dict[str, list[F]] = {}
        for record in await self.read(self.target):
            features = self.output.decode(record.value or b"")
            assert record.key == features.symbol.encode()
            found.setdefault(features.symbol, []).append(features)
        return found


async def until(condition: Callable[[], bool]) -> None:
    """Return once `condition` holds."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - counters tell nobody of their changes
            await asyncio.sleep(0.01)
