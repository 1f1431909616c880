"""The vision service with the shipped network as a process of its own, on a real Kafka."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import pytest

from schemas import Topic
from services.core.bus import TopicPartition
from services.core.bus.kafka import KafkaBus
from services.core.clock import SystemClock
from services.core.settings import BusSettings
from services.vision.loading import load_forecaster
from tests.unit.core.folding.desk import PARTITIONS, TOPICS
from tests.unit.vision.build import MODE
from tests.unit.vision.service_spec import Desk, market

pytestmark = pytest.mark.integration


async def test_a_process_that_is_told_to_end_publishes_and_commits_what_it_began(kafka_bus_settings: BusSettings, unique: str) -> None:
    bus = KafkaBus(kafka_bus_settings, SystemClock())
    desk = Desk(bus, unique)
    await desk.set_up()
    candles = market(30)
    await desk.publish(Topic.CANDLES, candles)
    variables = {
        "AQUILINE_RUN_MODE": MODE.value,
        "AQUILINE_BUS__URL": kafka_bus_settings.url,
        "AQUILINE_VISION__GROUP": unique,
        "AQUILINE_HTTP__PORT": "0",
    }
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "services.vision", env=os.environ | variables)
    reader = await bus.reader(client_id="watch")
    outputs = [TopicPartition(TOPICS[Topic.VISION_FEATURES], number) for number in range(PARTITIONS)]
    async with asyncio.timeout(90):
        while await reader.end_offsets(outputs) == await reader.beginning_offsets(outputs):  # noqa: ASYNC110 - a log to look at
            await asyncio.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 30) == 0
    features = await desk.features()
    detector = load_forecaster().detector
    for seen in features.values():
        assert [one.window_end_ms for one in seen] == sorted({one.window_end_ms for one in seen})
        assert {one.detector for one in seen} == {detector}
    await reader.close()
    await bus.close()
