"""Records are taken in order and none is left out, whatever Faust delivers around a rebalance."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
from faust.types import TP, TopicT

from services.core.bus import NewTopic, OffsetOutOfRangeError
from services.core.bus.memory import MemoryBus
from services.core.clock import VirtualClock
from services.core.errors import ServiceError
from services.core.topic_settings import TopicSettings
from services.scoring.faust_app import App
from services.scoring.ordered_inputs import Inputs

SIGNALS, MARKET = "signals", "market"


class Faust:
    """What Inputs asks of a Faust application, told by the test: an assignment, a generation, deliveries."""

    def __init__(self) -> None:
        self.consumer_generation_id = 1
        self.rebalancing = False
        self.tables = SimpleNamespace(actives_ready=True)
        self.consumer = self
        self.assigned = {TP(SIGNALS, 0), TP(MARKET, 0)}
        self._committed_offset: dict[TP, int | None] = {}
        self.sought: list[tuple[TP, int]] = []
        self.skipped: list[tuple[TP, int, int]] = []
        self.paused: set[TP] = set()
        self.queue: asyncio.Queue[Any] = asyncio.Queue()

    def assignment(self) -> set[TP]:
        return self.assigned

    def read_again(self, tp: TP, offset: int) -> None:
        self.sought.append((tp, offset))

    async def skip(self, tp: TP, first: int, after: int) -> None:
        self.skipped.append((tp, first, after))

    def pause_partitions(self, tps: set[TP]) -> None:
        self.paused |= tps

    def resume_partitions(self, tps: set[TP]) -> None:
        self.paused -= tps

    def deliver(self, topic: str, *offsets: int, generation: int = 1) -> None:
        for offset in offsets:
            self.queue.put_nowait(
                SimpleNamespace(
                    message=SimpleNamespace(
                        topic=topic,
                        partition=0,
                        offset=offset,
                        timestamp=1.0 + offset,
                        key=b"k",
                        value=b"v",
                        headers=None,
                        generation_id=generation,
                    )
                )
            )


@asynccontextmanager
async def desk(records: int = 0) -> AsyncIterator[tuple[Faust, Inputs]]:
    """Return a Faust and inputs on a log with so many records of the market."""
    bus, faust = MemoryBus(VirtualClock()), Faust()
    admin = await bus.admin()
    await admin.create([NewTopic(SIGNALS, 1, {}), NewTopic(MARKET, 1, {})])
    producer = await bus.producer(client_id="test")
    for _ in range(records):
        await (await producer.send(MARKET, key=b"k", value=b"v"))
    inputs = Inputs(cast("App", faust), cast("TopicT", faust), (SIGNALS, MARKET), TopicSettings())
    await inputs.start(bus)
    task = asyncio.create_task(inputs.follow())
    try:
        yield faust, inputs
    finally:
        task.cancel()
        await inputs.close()


async def taken(faust: Faust, inputs: Inputs) -> list[int]:
    """Return the offsets that can be taken once all that was delivered has been looked at."""
    while not faust.queue.empty():
        await inputs.arrived.wait()
        inputs.arrived.clear()
    await inputs.look()
    offsets = []
    while (event := inputs.take()) is not None:
        offsets.append(inputs.record_of(event).offset)
    return offsets


async def test_what_was_delivered_for_an_earlier_assignment_is_not_taken() -> None:
    async with desk(3) as (faust, inputs):
        await inputs.open()
        faust.deliver(MARKET, 0, 1, generation=0)
        faust.deliver(MARKET, 0, 1)
        assert await taken(faust, inputs) == [0, 1]
        inputs.shut()
        faust.consumer_generation_id = 2
        await inputs.open()
        faust.deliver(MARKET, 2)
        faust.deliver(MARKET, 0, 1, 2, generation=2)
        assert await taken(faust, inputs) == [0, 1, 2]


async def test_records_that_were_left_out_are_read_again_and_each_is_taken_once() -> None:
    async with desk(5) as (faust, inputs):
        await inputs.open()
        faust.deliver(MARKET, 0, 3, 4)
        assert await taken(faust, inputs) == [0]
        assert faust.sought == [(TP(MARKET, 0), 1)]
        faust.deliver(MARKET, 1, 2, 3, 4)
        assert await taken(faust, inputs) == [1, 2, 3, 4]


async def test_records_that_are_left_out_again_are_read_again_again() -> None:
    async with desk(5) as (faust, inputs):
        await inputs.open()
        faust.deliver(MARKET, 0, 3, 4)
        faust.deliver(MARKET, 2, 3, 4)
        assert await taken(faust, inputs) == [0]
        assert faust.sought == [(TP(MARKET, 0), 1)] * 2
        faust.deliver(MARKET, 1, 2, 3, 4)
        assert await taken(faust, inputs) == [1, 2, 3, 4]


async def test_what_faust_delivers_before_the_move_is_known_here_is_taken() -> None:
    async with desk(2) as (faust, inputs):
        await inputs.open()
        faust.deliver(MARKET, 0)
        assert await taken(faust, inputs) == [0]
        inputs.shut()
        faust.consumer_generation_id = 2
        faust.deliver(MARKET, 0, 1, generation=2)
        await asyncio.sleep(0)  # who waited for a record has it now
        await inputs.open()
        assert await taken(faust, inputs) == [0, 1]


async def test_what_is_delivered_twice_is_taken_once() -> None:
    async with desk(2) as (faust, inputs):
        await inputs.open()
        faust.deliver(MARKET, 0, 1, 0, 1)
        assert await taken(faust, inputs) == [0, 1]


async def test_reading_starts_at_the_commit() -> None:
    async with desk(4) as (faust, inputs):
        faust._committed_offset[TP(MARKET, 0)] = 2
        await inputs.open()
        faust.deliver(MARKET, 2, 3)
        assert await taken(faust, inputs) == [2, 3]


async def test_a_commit_that_the_log_no_longer_reaches_back_to_is_refused_with_a_count() -> None:
    async with desk(2) as (faust, inputs):
        faust._committed_offset[TP(MARKET, 0)] = 5
        with pytest.raises(OffsetOutOfRangeError, match="market\\[0\\]: 3 records"):
            await inputs.open()


async def test_topics_that_were_assigned_apart_are_refused() -> None:
    async with desk() as (faust, inputs):
        faust.assigned = {TP(SIGNALS, 0)}
        with pytest.raises(ServiceError, match="assigned to different workers"):
            await inputs.open()


async def test_a_topic_of_which_too_much_waits_is_paused_until_it_had_its_turn() -> None:
    async with desk(2_500) as (faust, inputs):
        await inputs.open()
        faust.deliver(MARKET, *range(2_001))
        while not faust.queue.empty():  # noqa: ASYNC110 - a queue has no event for being empty
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert faust.paused == {TP(MARKET, 0)}
        faust.deliver(MARKET, *range(2_001, 2_500))
        assert await taken(faust, inputs) == list(range(2_500))
        assert faust.paused == set()
