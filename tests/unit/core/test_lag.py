"""How far a service is behind, on the in-process bus."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from schemas import RunMode, Topic, topic_name
from services.core.bus import TopicPartition
from services.core.bus.memory import MemoryBus
from services.core.clock import VirtualClock
from services.core.lag import LagMonitor
from services.core.metrics import REGISTRY
from services.core.topic_admin import ensure_topics

INPUT = TopicPartition(topic_name(Topic.CANDLES, RunMode.DEMO), 0)


def shown(name: str) -> float | None:
    return REGISTRY.get_sample_value(name, {"topic": "candles", "partition": "0"})


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - a metric has no event
            await asyncio.sleep(0.01)


async def test_lag_is_what_lies_between_the_work_done_and_the_logs_end_and_goes_with_the_partition() -> None:
    bus = MemoryBus(VirtualClock())
    await ensure_topics(await bus.admin(), RunMode.DEMO, 1)
    producer = await bus.producer(client_id="feed")
    for _ in range(5):
        await (await producer.send(INPUT.topic, key=b"k", value=b"v"))
    done = {INPUT: 2}
    watch = asyncio.create_task(LagMonitor(bus, "lag", lambda: done).run())
    await until(lambda: shown("aquiline_lag_records") == 3)
    assert shown("aquiline_watermark_offset") == 2
    done[INPUT] = 5
    await until(lambda: shown("aquiline_lag_records") == 0)
    assert shown("aquiline_watermark_offset") == 5
    done.clear()
    await until(lambda: shown("aquiline_lag_records") is None)
    assert shown("aquiline_watermark_offset") is None
    watch.cancel()
    await asyncio.wait([watch])
