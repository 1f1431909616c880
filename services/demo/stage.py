"""The demo's parts, put together in one process: bus, topics, market service, vision, fusion worker; and how they are taken apart."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Final, TypeVar

from schemas import SPECS, Instrument, InstrumentEvent, Message, Topic, topic_name
from services.core import gc_tuning
from services.core.bus import Bus, BusError, Producer, TopicPartition
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
"""Of topics that the demo has to create."""
_LOOK_S: Final = 0.02
_EMPTY_TRIES: Final = 20
_EMPTY_RETRY_S: Final = 0.25

T = TypeVar("T")


class Stage:
    """Everything that runs. Services that break end whatever is awaited through `while_running`."""

    def __init__(self, bus: Bus, settings: Settings, clock: Clock) -> None:
        """Prepare on `bus`; nothing runs yet."""
        self.bus = bus
        self.settings = settings
        self.clock = clock
        self.producer: Producer
        self.market: MarketService
        self.worker: FusionWorker
        self.vision: VisionService | None = None
        self._running: dict[asyncio.Task[None], Service] = {}

    async def prepare(self, instruments: Sequence[Instrument], splits: Sequence[InstrumentEvent]) -> None:
        """Have empty topics, instruments and splits on the bus; raise BusError."""
        await empty_topics(self.bus, self.settings)
        self.producer = await self.bus.producer(client_id="aquiline-demo")
        await self.publish(Topic.INSTRUMENTS, [(one.symbol, one) for one in instruments])
        await self.publish(Topic.INSTRUMENT_EVENTS, [(one.symbol, one) for one in splits])

    async def publish(self, topic: Topic, messages: Iterable[tuple[str, Message]]) -> None:
        """Publish messages by key, and return once all are acknowledged."""
        name = topic_name(topic, self.settings.run_mode)
        sent = [await self.producer.send(name, key=key.encode(), value=message.encode()) for key, message in messages]
        for acknowledgement in sent:
            await acknowledgement

    async def start_market(self) -> None:
        """Start candles to market features."""
        health = Health()
        self.market = MarketService(self.bus, self.settings, self.clock, health)
        await self._start("market", self.market, health)

    async def start_vision(self) -> None:
        """Start candles to charts to vision features; raise SettingsError when the chart network cannot be had."""
        vision = self.settings.vision
        try:
            model = await asyncio.to_thread(load_forecaster, vision.weights_file, device=vision.device)
        except ForecasterError as error:
            raise SettingsError(f"--vision live: {error}; or play what was recorded: --vision recorded") from error
        health = Health()
        self.vision = VisionService(self.bus, self.settings, self.clock, model, health)
        await self._start("vision", self.vision, health)

    async def start_worker(self) -> None:
        """Start the fusion worker, and return once it has rebuilt its books and sent its prefixes ahead."""
        health = Health()
        self.worker = make_worker(self.bus, self.settings, self.clock, health)
        gc_tuning.freeze()  # as in a process of its own
        await self._start("fusion", self.worker, health)
        await self.while_running(self.worker.prewarmer.idle())

    async def length(self, topic: Topic) -> int:
        """Return how many records a topic holds."""
        reader = await self.bus.reader(client_id="aquiline-demo-length")
        try:
            partitions = await partitions_of(self.bus, topic_name(topic, self.settings.run_mode))
            begins, ends = await reader.beginning_offsets(partitions), await reader.end_offsets(partitions)
            return sum(ends.values()) - sum(begins.values())
        finally:
            await reader.close()

    async def until(self, true: Callable[[], bool], within_s: float | None = None) -> bool:
        """Return True once `true()` holds, False when `within_s` has passed before."""

        async def look() -> None:
            while not true():  # noqa: ASYNC110 - counts have no event
                await asyncio.sleep(_LOOK_S)

        try:
            async with asyncio.timeout(within_s):
                await self.while_running(look())
        except TimeoutError:
            return False
        return True

    async def while_running(self, work: Awaitable[T]) -> T:
        """Return what `work` returns; when a service ends meanwhile, raise what it ended with."""
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait([task, *self._running], return_when=asyncio.FIRST_COMPLETED)
            for service in self._running:
                if service.done():
                    service.result()
                    raise BusError(f"the {service.get_name()} service ended before its time")
            return await task
        finally:
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def stop(self) -> None:
        """Have every service drain, the worker first, and leave the bus open for readers."""
        for task, service in reversed(self._running.items()):
            if not task.done():
                service.stop()
                await asyncio.gather(task, return_exceptions=True)
        broken = [error for task in self._running if (error := task.exception()) is not None]
        self._running.clear()
        if broken:
            raise broken[0]

    async def _start(self, name: str, service: Service, health: Health) -> None:
        self._running[asyncio.create_task(service.run(), name=name)] = service
        await self.until(lambda: health.ready)


@contextlib.asynccontextmanager
async def staged(bus: Bus, settings: Settings, clock: Clock) -> AsyncIterator[Stage]:
    """Yield a stage, and take it apart when the context ends, whatever it ends with."""
    stage = Stage(bus, settings, clock)
    try:
        yield stage
    finally:
        try:
            await stage.stop()
        finally:
            if hasattr(stage, "producer"):
                await stage.producer.close()
            await bus.close()


async def empty_topics(bus: Bus, settings: Settings) -> None:
    """Create the run mode's topics where they are missing, and delete what the others hold but tables; raise BusError."""
    admin = await bus.admin()
    try:
        names = {topic: topic_name(topic, settings.run_mode) for topic in SPECS}
        known = await admin.describe([names[Topic.MARKET_FEATURES]])
        partitions = known[names[Topic.MARKET_FEATURES]].partitions if known else PARTITIONS
        await ensure_topics(admin, settings.run_mode, partitions)
        for attempt in range(_EMPTY_TRIES):
            try:
                await admin.truncate([name for topic, name in names.items() if not SPECS[topic].compacted])
            except BusError:
                # A topic just created may have no leader yet that takes the call.
                if attempt + 1 == _EMPTY_TRIES:
                    raise
                await asyncio.sleep(_EMPTY_RETRY_S)
            else:
                return
    finally:
        await admin.close()


async def partitions_of(bus: Bus, topic: str) -> list[TopicPartition]:
    """Return every partition of `topic`."""
    admin = await bus.admin()
    try:
        found = await admin.describe([topic])
    finally:
        await admin.close()
    return [TopicPartition(topic, number) for number in range(found[topic].partitions)]
