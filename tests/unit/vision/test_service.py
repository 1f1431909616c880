"""The vision service on the in-process bus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest

from schemas import Topic
from services.core.bus import BusError, Headers, Position, TopicPartition
from services.core.bus.memory import MemoryBus, MemoryProducer
from services.core.bus.memory_group import MemoryConsumer
from services.core.clock import SystemClock
from services.core.health import Health
from services.vision.service import VisionService
from tests.unit.core.folding.desk import PARTITIONS, TOPICS, until
from tests.unit.vision.service_spec import Desk, VisionServiceSpec, expected, market


class _RefusingProducer:
    """Appends what it is given until `left` is used up, and then acknowledges nothing more."""

    def __init__(self, inner: MemoryProducer, topic: str, left: int) -> None:
        self._inner = inner
        self._topic = topic
        self._left = left

    async def send(
        self,
        topic: str,
        *,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = (),
        timestamp_ms: int | None = None,
        partition: int | None = None,
    ) -> Awaitable[Position]:
        if topic == self._topic:
            self._left -= 1
            if self._left < 0:
                refused: asyncio.Future[Position] = asyncio.get_running_loop().create_future()
                refused.set_exception(BusError("the broker did not take the record; see its log"))
                return refused
        return await self._inner.send(topic, key=key, value=value, headers=headers, timestamp_ms=timestamp_ms, partition=partition)

    async def flush(self) -> None:
        await self._inner.flush()

    async def close(self) -> None:
        await self._inner.close()


class _RefusingBus(MemoryBus):
    """A broker that stops taking vision features after so many."""

    def __init__(self, left: int | None) -> None:
        super().__init__(SystemClock())
        self.left = left

    async def producer(self, *, client_id: str, **named: Any) -> MemoryProducer:
        inner = await super().producer(client_id=client_id, **named)
        if self.left is None:
            return inner
        return _RefusingProducer(inner, TOPICS[Topic.VISION_FEATURES], self.left)  # type: ignore[return-value]


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    bus = MemoryBus(SystemClock())
    desk = Desk(bus, "vision")
    await desk.set_up()
    yield desk
    await bus.close()


async def committed(bus: MemoryBus) -> int:
    """Return how many records of all partitions the group has committed."""
    member = await bus.consumer(group="vision", client_id="look")
    found = await member.committed([TopicPartition(TOPICS[Topic.CANDLES], number) for number in range(PARTITIONS)])
    return sum(one.offset for one in found.values() if one is not None)


class TestInProcess(VisionServiceSpec):
    """The common promises, and those that take a bus that fails on request."""

    async def test_what_the_broker_does_not_take_is_not_committed_and_done_by_the_next(self) -> None:
        bus = _RefusingBus(left=None)
        desk = Desk(bus, "vision")
        await desk.set_up()
        candles = market(20)
        await desk.publish(Topic.CANDLES, candles)
        bus.left = 30
        with pytest.raises(BusError, match="did not take"):
            await desk.service().run()
        assert await committed(bus) == 0
        bus.left = None
        async with desk.running() as service:
            await until(lambda: service.counts.records == len(candles))
        found = await desk.features()
        for symbol, wanted in expected(candles).items():
            assert list({seen.window_end_ms: seen for seen in found[symbol]}.values()) == wanted
        assert await committed(bus) == len(candles)
        await bus.close()

    async def test_a_crash_loses_nothing(self, desk: Desk) -> None:
        """Killed in the middle, without a word to the group: the next one publishes all that the first had not committed."""
        candles = market(40)
        await desk.publish(Topic.CANDLES, candles[: len(candles) // 2])
        service = desk.service()
        running = asyncio.create_task(service.run())
        await until(lambda: service.counts.published > 0)
        assert isinstance(service._consumer, MemoryConsumer)
        service._consumer.crash()
        with pytest.raises(BusError, match="it crashed"):
            await running
        await desk.publish(Topic.CANDLES, candles[len(candles) // 2 :])
        async with desk.running() as other:
            await until(lambda: sum(held.next_offset for held in other._partitions.values()) == len(candles))
        found = await desk.features()
        for symbol, wanted in expected(candles).items():
            assert list({seen.window_end_ms: seen for seen in found[symbol]}.values()) == wanted

    async def test_it_is_ready_once_it_knows_its_instruments_and_has_partitions(self, desk: Desk) -> None:
        health = Health()
        service = VisionService(desk.bus, desk.settings, SystemClock(), desk.model, health)
        assert set(health.unmet) == {"instruments", "assigned"}
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(service.run())
            await until(lambda: health.ready)
            service.stop()
        assert not health.ready
