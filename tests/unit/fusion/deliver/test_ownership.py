"""Members of a group that has more of them than partitions."""

from __future__ import annotations

import asyncio

from schemas import Topic
from services.core.health import Health
from services.core.topic_admin import ensure_topics
from services.fusion.worker import FusionWorker, WorkerDependencies
from tests.unit.fusion import build
from tests.unit.fusion.build import MODE, bar, instrument
from tests.unit.fusion.desk import HOLD, NOW, Desk, ScriptedEngine


async def test_a_worker_without_partitions_is_ready_and_takes_over_when_the_other_leaves() -> None:
    desk = Desk(ScriptedEngine([HOLD]), min_bars=1)
    await ensure_topics(await desk.bus.admin(), MODE, 1)
    await desk.send(Topic.INSTRUMENTS, instrument())
    async with desk.running():
        health, engine = Health(), ScriptedEngine([HOLD])
        second = await FusionWorker.open(
            WorkerDependencies(desk.bus, desk.settings, desk.clock, health, engine, None, build.tokenizer(), None)
        )
        running = asyncio.create_task(second.run())
        await desk.until(lambda: health.ready and desk.health.ready)
        await desk.bars(bar(0))
        await desk.concluded(1)
    await desk.bars(bar(1))
    async with asyncio.timeout(20):
        while second.accounts.outcomes.total() < 1:  # noqa: ASYNC110 - counts have no event
            await asyncio.sleep(0.002)
    assert len(await desk.audit()) == 2
    assert desk.clock.now_ms() == NOW
    second.stop()
    await running
