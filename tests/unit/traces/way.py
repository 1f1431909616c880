"""A candle's whole way, on any bus: market, vision and fusion in one process, each with its own tracer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from schemas import Candle, Instrument, RunMode, Topic, topic_name
from services.core.bus import Bus, Headers, Record, TopicPartition
from services.core.clock import SystemClock
from services.core.fusion_settings import FusionSettings
from services.core.health import Health
from services.core.lifecycle import Service
from services.core.settings import BusSettings, MarketSettings, RedisSettings, Settings, TracesSettings, VisionSettings
from services.core.topic_admin import ensure_topics
from services.fusion.rooms import WorkerDependencies
from services.fusion.worker import FusionWorker
from services.market.service import MarketService
from services.vision.render import ChartSpec
from services.vision.service import VisionService
from tests.unit.core.folding.desk import until
from tests.unit.fusion.build import tokenizer
from tests.unit.fusion.desk import BUY, ScriptedEngine
from tests.unit.vision.build import MINUTE, START, MeanForecaster

SYMBOL = "BTC-USD.CBSE"
HISTORY = 16
"""Enough for an average true range, without which nothing is asked."""
WINDOW: Final = 5


class Way:
    """Topics of `run_mode` on a bus, with a history that nobody is asked about."""

    def __init__(self, bus: Bus, traces: TracesSettings, run_mode: RunMode, group: str) -> None:
        self.bus = bus
        self.run_mode = run_mode
        self.engine = ScriptedEngine([BUY])
        self.settings = Settings(
            run_mode=run_mode,
            bus=BusSettings(url=bus.address),
            redis=RedisSettings(url="none://"),
            market=MarketSettings(group=f"{group}-market", aggregate={}),
            vision=VisionSettings(group=f"{group}-vision", window_bars=WINDOW),
            fusion=FusionSettings(
                group=f"{group}-fusion",
                intervals=["1m"],
                window_bars=16,
                epoch_slots=8,
                min_bars=3,
                vision_wait_ms=20_000,
                max_staleness_ms=60_000,
                entry_validity_ms={"1m": 60_000},
                prewarm=False,
                drain_ms=2_000,
            ),
            traces=traces,
        )
        self.worker: FusionWorker

    async def read(self, topic: Topic) -> list[Record]:
        """Return all records of a topic."""
        name = topic_name(topic, self.run_mode)
        admin, reader = await self.bus.admin(), await self.bus.reader(client_id="test")
        try:
            partitions = [TopicPartition(name, number) for number in range((await admin.describe([name]))[name].partitions)]
            ends = await reader.end_offsets(partitions)
            await reader.read(await reader.beginning_offsets(partitions))
            records: list[Record] = []
            while any(reader.position(partition) < end for partition, end in ends.items()):
                records += await reader.poll(timeout_ms=200)
        finally:
            await reader.close()
            await admin.close()
        return records

    async def publish(self, topic: Topic, messages: Sequence[Candle | Instrument], headers: Headers = ()) -> None:
        for one in messages:
            await self.publish_raw(topic, one.symbol.encode(), one.encode(), headers)

    async def publish_raw(self, topic: Topic, key: bytes, value: bytes, headers: Headers = ()) -> None:
        producer = await self.bus.producer(client_id="test")
        await (await producer.send(topic_name(topic, self.run_mode), key=key, value=value, headers=headers))
        await producer.close()

    async def candle(self, number: int, headers: Headers = ()) -> None:
        await self.publish(Topic.CANDLES, [self._candle(number)], headers)

    @asynccontextmanager
    async def running(self, partitions: int = 1) -> AsyncIterator[None]:
        """Run the three services, and return when the worker would ask about the next candle; end them in order afterwards."""
        admin = await self.bus.admin()
        await ensure_topics(admin, self.run_mode, partitions)
        await admin.close()
        await self.publish(
            Topic.INSTRUMENTS,
            [
                Instrument.model_validate(
                    {
                        "schema_version": 1,
                        "run_mode": self.run_mode.value,
                        "symbol": SYMBOL,
                        "currency": "USD",
                        "price_increment": "0.01",
                        "calendar": "24x7",
                        "price_adjustment": "none",
                    }
                )
            ],
        )
        await self.publish(Topic.CANDLES, [self._candle(number) for number in range(HISTORY)])
        clock = SystemClock()
        market = MarketService(self.bus, self.settings, clock, Health())
        vision = VisionService(self.bus, self.settings, clock, MeanForecaster(ChartSpec(WINDOW)), Health())
        async with _run(market, vision):
            await until(lambda: market.counts.records >= HISTORY and vision.counts.records >= HISTORY)
            health = Health()
            self.worker = await FusionWorker.open(
                WorkerDependencies(
                    bus=self.bus,
                    settings=self.settings,
                    clock=clock,
                    health=health,
                    engine=self.engine,
                    fallback=None,
                    tokenizer=tokenizer(),
                    redis=None,
                )
            )
            async with _run(self.worker):
                await until(lambda: health.ready and self.worker.caught_up)
                yield

    async def decided(self, count: int = 1) -> None:
        """Return once the worker has ended `count` triggers."""
        await until(lambda: sum(self.worker.accounts.outcomes.values()) >= count)

    def _candle(self, number: int) -> Candle:
        close = 100 + number % 3
        return Candle(
            schema_version=1,
            run_mode=self.run_mode,
            symbol=SYMBOL,
            interval="1m",
            ts_open_ms=START + number * MINUTE,
            ts_close_ms=START + (number + 1) * MINUTE,
            open=close,
            high=close + 1,
            low=close - 1,
            close=close,
            volume=5.0,
            closed=True,
            revision=0,
        )


@asynccontextmanager
async def _run(*services: Service) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        for service in services:
            tasks.create_task(service.run())
        yield
        for service in services:
            service.stop()
