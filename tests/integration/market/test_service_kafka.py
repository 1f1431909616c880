"""The market service on a real Kafka, and as a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator

import pytest
from aiokafka import AIOKafkaProducer

from schemas import Topic
from services.core.bus import TopicPartition
from services.core.bus.kafka import KafkaBus
from services.core.clock import SystemClock
from services.core.folding.disposition import Disposition
from services.core.settings import BusSettings
from tests.unit.core.folding.desk import PARTITIONS, TOPICS
from tests.unit.market.build import MODE
from tests.unit.market.service_spec import Desk, MarketServiceSpec, expected, market

pytestmark = pytest.mark.integration


@pytest.fixture
async def desk(kafka_bus_settings: BusSettings, unique: str) -> AsyncIterator[Desk]:
    bus = KafkaBus(kafka_bus_settings, SystemClock())
    desk = Desk(bus, unique)
    await desk.set_up()
    yield desk
    await bus.close()


class TestOnKafka(MarketServiceSpec):
    """The common promises."""

    async def test_candles_of_an_aborted_transaction_leave_no_features_and_no_lag(
        self, desk: Desk, kafka_bus_settings: BusSettings, unique: str
    ) -> None:
        candles = market(4)
        await desk.publish(Topic.CANDLES, candles)
        producer = AIOKafkaProducer(bootstrap_servers=kafka_bus_settings.url.removeprefix("kafka://"), transactional_id=unique)
        await producer.start()
        await producer.begin_transaction()
        for one in market(4, start=4):
            await producer.send(TOPICS[Topic.CANDLES], key=one.symbol.encode(), value=one.encode())
        await producer.flush()
        await producer.abort_transaction()
        await producer.stop()
        reader = await desk.bus.reader(client_id="watch")
        partitions = [TopicPartition(TOPICS[Topic.CANDLES], number) for number in range(PARTITIONS)]
        async with desk.running() as service, asyncio.timeout(60):
            # The broker answers an abort before its markers are on the log: the ends are behind what is aborted only after that.
            while sum((ends := await reader.end_offsets(partitions)).values()) <= 2 * len(candles) or service._finished() != ends:  # noqa: ASYNC110 - a log to look at
                await asyncio.sleep(0.02)
        await reader.close()
        assert await desk.features() == expected(candles)
        assert service.counts.dispositions == {Disposition.FOLDED: len(candles)}

    async def test_a_process_that_is_told_to_end_publishes_and_commits_what_it_began(
        self, desk: Desk, kafka_bus_settings: BusSettings
    ) -> None:
        candles = market(100)
        await desk.publish(Topic.CANDLES, candles)
        variables = {
            "AQUILINE_RUN_MODE": MODE.value,
            "AQUILINE_BUS__URL": kafka_bus_settings.url,
            "AQUILINE_MARKET__GROUP": desk.settings.market.group,
            "AQUILINE_MARKET__AGGREGATE": '{"1m": ["3m"]}',
            "AQUILINE_HTTP__PORT": "0",
        }
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "services.market", env=os.environ | variables)
        reader = await desk.bus.reader(client_id="watch")
        outputs = [TopicPartition(TOPICS[Topic.MARKET_FEATURES], number) for number in range(PARTITIONS)]
        async with asyncio.timeout(60):
            while await reader.end_offsets(outputs) == await reader.beginning_offsets(outputs):  # noqa: ASYNC110 - a log to look at
                await asyncio.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 30) == 0
        await reader.close()
        async with desk.running() as service:
            async with asyncio.timeout(60):
                while sum(map(len, (await desk.features()).values())) < 2 * len(candles):  # noqa: ASYNC110 - a log to look at
                    await asyncio.sleep(0.1)
        assert await desk.features() == expected(candles)
        assert service.counts.dispositions[Disposition.FOLDED] < len(candles)
