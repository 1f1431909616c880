"""The services of the demo in one process: bus, market service, vision service and fusion worker, from start to stop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, TypeVar

from schemas import SPECS, Candle, Instrument, InstrumentEvent, Message, Topic, topic_name
from services.core import gc_tuning
from services.core.bus import Bus, BusError, Producer
from services.core.bus.topic_reader import partitions_of
from services.core.clock import Clock
from services.core.health import Health
from services.core.lifecycle import Service
from services.core.settings import Settings, SettingsError
from services.core.topic_admin import ensure_topics
from services.fusion.service import make_worker
from services.fusion.worker import FusionWorker
from services.market.service import MarketService
from services.vision.forecaster import ForecasterError
from services.vision.loading import load_forecaster
from services.vision.service import VisionService

PARTITIONS: Final = 4
"""Partitions of topics that the demo creates."""
_POLL_S: Final = 0.02
_TRUNCATE_ATTEMPTS: Final = 20
_TRUNCATE_RETRY_S: Final = 0.25

T = TypeVar("T")


class Pipeline:
    """All services over one bus. A service that fails ends whatever is awaited through `guard`."""

    def __init__(self, bus: Bus, settings: Settings, clock: Clock) -> None:
        """Start nothing yet."""
        self.bus = bus
        self.settings = settings
        self.clock = clock
        self.producer: Producer
        self.market: MarketService
        self.worker: FusionWorker
        self.vision: VisionService | None = None
        self.published: set[tuple[str, int]] = set()
        """Symbol and close of each candle on the bus."""
        self._running: dict[asyncio.Task[None], Service] = {}

    async def prepare(self, instruments: Sequence[Instrument], splits: Sequence[InstrumentEvent]) -> None:
        """Empty the topics, publish instruments and splits, start the market service; raise BusError."""
        await empty_topics(self.bus, self.settings)
        self.producer = await self.bus.producer(client_id="aquiline-demo")
        await self.publish(Topic.INSTRUMENTS, [(one.symbol, one) for one in instruments])
        await self.publish(Topic.INSTRUMENT_EVENTS, [(one.symbol, one) for one in splits])
        health = Health()
        self.market = MarketService(self.bus, self.settings, self.clock, health)
        await self._start("market", self.market, health)

    async def publish_candles(self, candles: Sequence[Candle]) -> None:
        """Publish candles, and return once all are acknowledged."""
        await self.publish(Topic.CANDLES, [(candle.symbol, candle) for candle in candles])
        self.published.update((candle.symbol, candle.ts_close_ms) for candle in candles)

    async def publish(self, topic: Topic, messages: Sequence[tuple[str, Message]]) -> None:
        """Publish messages by key, and return once all are acknowledged."""
        name = topic_name(topic, self.settings.run_mode)
        sent = [await self.producer.send(name, key=key.encode(), value=message.encode()) for key, message in messages]
        for acknowledgement in sent:
            await acknowledgement

    async def start_vision(self) -> None:
        """Start candles to chart images to vision features; raise SettingsError when the model cannot be loaded."""
        vision, health = self.settings.vision, Health()
        try:
            model = await asyncio.to_thread(load_forecaster, vision.weights_file, device=vision.device)
        except ForecasterError as error:
            raise SettingsError(f"--vision live: {error}; or play the recorded features: --vision recorded") from error
        self.vision = VisionService(self.bus, self.settings, self.clock, model, health)
        await self._start("vision", self.vision, health)

    async def start_worker(self, settings: Settings) -> None:
        """Start the fusion worker; return once it has rebuilt its books and sent the prefixes ahead to the engine."""
        health = Health()
        self.worker = await make_worker(self.bus, settings, self.clock, health)
        gc_tuning.freeze()  # as in a process of its own
        await self._start("fusion", self.worker, health)
        await self.guard(self.worker.prewarmer.idle())

    def all_processed(self) -> bool:
        """Return whether every producer of features has processed every candle."""
        return all(one.counts.records >= len(self.published) for one in (self.market, self.vision) if one is not None)

    def settled(self) -> bool:
        """Return whether every trigger so far has its outcome."""
        return self.worker.accounts.outcomes.total() == self.worker.accounts.triggers

    async def inputs(self) -> int:
        """Return how many records the worker's input topics hold."""
        return await self._length(Topic.MARKET_FEATURES) + await self._length(Topic.VISION_FEATURES)

    async def market_settled(self) -> None:
        """Return once the broker has acknowledged all market features."""
        while await self._length(Topic.MARKET_FEATURES) < self.market.counts.features:  # noqa: ASYNC110 - acknowledgements have no event
            await asyncio.sleep(_POLL_S)

    async def wait_until(self, condition: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Return True once `condition()` holds, False after `timeout_s`."""

        async def poll() -> None:
            while not condition():  # noqa: ASYNC110 - counts have no event
                await asyncio.sleep(_POLL_S)

        try:
            async with asyncio.timeout(timeout_s):
                await self.guard(poll())
        except TimeoutError:
            return False
        return True

    async def guard(self, work: Awaitable[T]) -> T:
        """Return what `work` returns; raise a service's error, or BusError, when a service ends first."""
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait([task, *self._running], return_when=asyncio.FIRST_COMPLETED)
            for service in self._running:
                if service.done():
                    service.result()
                    raise BusError(f"the {service.get_name()} service ended early")
            return await task
        finally:
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def stop_worker(self) -> None:
        """Drain the fusion worker; raise what it failed with."""
        await self._stop([task for task, service in self._running.items() if service is self.worker])

    async def stop(self) -> None:
        """Drain every service, the newest first; the bus stays open for readers."""
        await self._stop(list(reversed(self._running)))

    async def _stop(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        for task in tasks:
            if not task.done():
                self._running[task].stop()
                await asyncio.gather(task, return_exceptions=True)
        failed = [error for task in tasks if self._running.pop(task) and (error := task.exception()) is not None]
        if failed:
            raise failed[0]

    async def _start(self, name: str, service: Service, health: Health) -> None:
        self._running[asyncio.create_task(service.run(), name=name)] = service
        await self.wait_until(lambda: health.ready)

    async def _length(self, topic: Topic) -> int:
        reader = await self.bus.reader(client_id="aquiline-demo-length")
        try:
            partitions = await partitions_of(self.bus, topic_name(topic, self.settings.run_mode))
            return sum((await reader.end_offsets(partitions)).values()) - sum((await reader.beginning_offsets(partitions)).values())
        finally:
            await reader.close()


@contextlib.asynccontextmanager
async def running_pipeline(bus: Bus, settings: Settings, clock: Clock) -> AsyncIterator[Pipeline]:
    """Yield a pipeline; stop it and close the bus when the context ends, whatever it ends with."""
    pipeline = Pipeline(bus, settings, clock)
    try:
        yield pipeline
    finally:
        try:
            await pipeline.stop()
        finally:
            if hasattr(pipeline, "producer"):
                await pipeline.producer.close()
            await bus.close()


async def empty_topics(bus: Bus, settings: Settings) -> None:
    """Create the run mode's topics where they are missing, and truncate all but the compacted ones; raise BusError."""
    admin = await bus.admin()
    try:
        names = {topic: topic_name(topic, settings.run_mode) for topic in SPECS}
        existing = await admin.describe([names[Topic.MARKET_FEATURES]])
        partitions = existing[names[Topic.MARKET_FEATURES]].partitions if existing else PARTITIONS
        await ensure_topics(admin, settings.run_mode, partitions)
        for attempt in range(1, _TRUNCATE_ATTEMPTS + 1):
            try:
                return await admin.truncate([name for topic, name in names.items() if not SPECS[topic].compacted])
            except BusError:
                # A topic just created may have no leader yet.
                if attempt == _TRUNCATE_ATTEMPTS:
                    raise
                await asyncio.sleep(_TRUNCATE_RETRY_S)
    finally:
        await admin.close()
