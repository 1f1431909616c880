"""The shipped stocks on the in-process bus: market service and workers on one loop, for benchmarks that time a worker beside an engine."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from redis.asyncio import Redis

from schemas import Candle, RunMode
from services.core.bus import Producer, Reader, TopicPartition
from services.core.bus.memory import MemoryBus
from services.core.clock import SystemClock
from services.core.health import Health
from services.core.settings import Settings
from services.core.tokenizer import Tokenizer
from services.core.topic_admin import ensure_topics
from services.feeds.samples import load_instruments, load_splits
from services.fusion.worker import FusionWorker, WorkerDependencies
from services.inference.engine import Engine
from services.market.service import MarketService

FIRST_PLAYED_MS: Final = 1_325_500_000_000
"""2 January 2012: from then on there are recorded vision features, and no splits."""


class StockSite:
    """Bus, market service and a worker for each engine, all of one group."""

    def __init__(self, settings: Settings, engines: Sequence[Engine], *, partitions: int) -> None:
        """Put them together; nothing runs yet."""
        self.settings = settings
        self.clock = SystemClock()
        self.bus = MemoryBus(self.clock)
        self.market = MarketService(self.bus, settings, self.clock, Health())
        self.workers: list[FusionWorker] = []
        self.producer: Producer
        self._engines = engines
        self._partitions = partitions
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, history: Sequence[Candle], tokenizer: Path, redis: Redis | None) -> None:
        """Publish instruments, splits and `history`, start the services, and wait until every worker is ready."""
        await ensure_topics(await self.bus.admin(), self.settings.run_mode, partitions=self._partitions)
        self.producer = await self.bus.producer(client_id="stock-site")
        for instrument in load_instruments(RunMode.DEMO):
            await self.producer.send("demo.instruments", key=instrument.symbol.encode(), value=instrument.encode())
        for split in load_splits(RunMode.DEMO):
            await self.producer.send("demo.instrument-events", key=split.symbol.encode(), value=split.encode())
        for candle in sorted(history, key=lambda candle: candle.ts_close_ms):
            await self.send_candle(candle)
        self._tasks.append(asyncio.create_task(self.market.run()))
        while self.market.counts.records < len(history):
            self.check()
            await asyncio.sleep(0.05)
        healths = [Health() for _ in self._engines]
        for engine, health in zip(self._engines, healths, strict=True):
            worker = await FusionWorker.open(
                WorkerDependencies(
                    bus=self.bus,
                    settings=self.settings,
                    clock=self.clock,
                    health=health,
                    engine=engine,
                    fallback=None,
                    tokenizer=Tokenizer.from_file(tokenizer),
                    redis=redis,
                )
            )
            self.workers.append(worker)
            self._tasks.append(asyncio.create_task(worker.run()))
        while not all(health.ready for health in healths):
            self.check()
            await asyncio.sleep(0.05)

    async def send_candle(self, candle: Candle) -> None:
        """Append a bar."""
        await self.producer.send("demo.candles", key=candle.symbol.encode(), value=candle.encode())

    async def audit_reader(self) -> Reader:
        """Return a reader of the audit from here on."""
        reader = await self.bus.reader(client_id="stock-site")
        partitions = [TopicPartition("demo.signal-audit", number) for number in range(self._partitions)]
        await reader.read(await reader.end_offsets(partitions))
        return reader

    def check(self) -> None:
        """Raise what ended a service."""
        for task in self._tasks:
            if task.done():
                task.result()

    async def stop(self) -> None:
        """Stop the services."""
        for worker in self.workers:
            worker.stop()
        self.market.stop()
        await asyncio.gather(*self._tasks)
