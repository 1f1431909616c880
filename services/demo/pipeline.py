"""The services of the demo in one process: bus, market service, vision service and fusion worker, from start to stop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, Final

from schemas import Candle, Message, Topic, topic_name
from services.core import gc_tuning
from services.core.bus import Bus, BusError, Producer
from services.core.bus.topic_reader import partitions_of
from services.core.clock import Clock
from services.core.health import Health
from services.core.lifecycle import Service
from services.core.settings import Settings, SettingsError
from services.core.topic_admin import empty_topics
from services.demo.console import make_console
from services.fusion.service import make_worker
from services.fusion.worker import FusionWorker
from services.market.service import MarketService
from services.vision.forecaster import ForecasterError
from services.vision.loading import load_forecaster
from services.vision.service import VisionService

PARTITIONS: Final = 4
"""Partitions of topics that the demo creates."""
_POLL_S: Final = 0.02


class Pipeline:
    """All services over one bus. One that fails, or ends before it is stopped, cancels the task that runs the pipeline."""

    producer: Producer
    market: MarketService
    worker: FusionWorker
    vision: VisionService | None = None

    def __init__(self, bus: Bus, settings: Settings, clock: Clock, tasks: asyncio.TaskGroup) -> None:
        """Start nothing yet; services run as `tasks`."""
        self.bus = bus
        self._settings = settings
        self._clock = clock
        self._tasks = tasks
        self._running: dict[Service, asyncio.Task[None]] = {}
        self.published: set[tuple[str, int]] = set()
        """Symbol and close of each candle on the bus."""

    async def start(self, reference: Sequence[tuple[Topic, str, Message]]) -> None:
        """Empty the topics, publish the `reference` messages by key, start the market service; raise BusError."""
        await empty_topics(self.bus, self._settings.run_mode, PARTITIONS)
        self.producer = await self.bus.producer(client_id="aquiline-demo")
        await self._publish(reference)
        health = Health()
        self.market = MarketService(self.bus, self._settings, self._clock, health)
        await self._start("market", self.market, health)

    async def start_vision(self) -> None:
        """Start candles to chart images to vision features; raise SettingsError when the model cannot be loaded."""
        vision, health = self._settings.vision, Health()
        try:
            model = await asyncio.to_thread(load_forecaster, vision.weights_file, device=vision.device)
        except ForecasterError as error:
            raise SettingsError(f"--vision live: {error}; or play the recorded features: --vision recorded") from error
        self.vision = VisionService(self.bus, self._settings, self._clock, model, health)
        await self._start("vision", self.vision, health)

    async def start_worker(self, settings: Settings) -> None:
        """Start the fusion worker; return once it has rebuilt its books and sent the prefixes ahead to the engine."""
        health = Health()
        self.worker = await make_worker(self.bus, settings, self._clock, health)
        gc_tuning.freeze()  # as in a process of its own
        await self._start("fusion", self.worker, health)
        await self.worker.prewarmer.idle()

    async def start_console(self, configurations: list[Settings]) -> str:
        """Start the console and return its address; raise SettingsError when its port is in use."""
        health = Health()
        console, address = make_console(self.bus, self._clock, health, self._settings, configurations)
        await self._start("console", console, health)
        return address

    async def stop(self, *services: Service) -> None:
        """Drain `services`, or every service, the newest first; the bus stays open for readers."""
        for service in services or tuple(reversed(self._running)):
            task = self._running.pop(service)
            service.stop()
            await asyncio.wait([task])

    async def publish_candles(self, candles: Sequence[Candle]) -> None:
        """Publish candles, and return once all are acknowledged."""
        await self._publish([(Topic.CANDLES, candle.symbol, candle) for candle in candles])
        self.published.update((candle.symbol, candle.ts_close_ms) for candle in candles)

    def publish_later(self, due_s: float, topic: Topic, key: str, message: Message, after: asyncio.Task[None] | None) -> asyncio.Task[None]:
        """Publish a message at `due_s` of the loop's time, and not before the task `after` has ended."""

        async def publish() -> None:
            await asyncio.sleep(due_s - asyncio.get_running_loop().time())
            if after is not None:
                await asyncio.wait([after])
            await self._publish([(topic, key, message)])

        return self.spawn(publish(), f"later {topic.value}")

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run `work` beside the services; its failure ends the run as theirs does."""
        return self._tasks.create_task(work, name=name)

    def all_processed(self) -> bool:
        """Return whether every producer of features has processed every candle."""
        return all(one.counts.records >= len(self.published) for one in (self.market, self.vision) if one is not None)

    def settled(self) -> bool:
        """Return whether every trigger so far has its outcome."""
        return self.worker.accounts.outcomes.total() == self.worker.accounts.triggers

    async def length(self, *topics: Topic) -> int:
        """Return how many records `topics` hold together."""
        reader = await self.bus.reader(client_id="aquiline-demo-length")
        try:
            partitions = [one for topic in topics for one in await partitions_of(self.bus, topic_name(topic, self._settings.run_mode))]
            return sum((await reader.end_offsets(partitions)).values()) - sum((await reader.beginning_offsets(partitions)).values())
        finally:
            await reader.close()

    async def features_acknowledged(self) -> None:
        """Return once the broker has acknowledged the features of every candle that was processed."""
        while (  # noqa: ASYNC110 - acknowledgements have no event
            await self.length(Topic.MARKET_FEATURES) < self.market.counts.features
            or (self.vision is not None and await self.length(Topic.VISION_FEATURES) < self.vision.counts.due)
        ):
            await asyncio.sleep(_POLL_S)

    async def _publish(self, messages: Sequence[tuple[Topic, str, Message]]) -> None:
        run_mode = self._settings.run_mode
        sent = [await self.producer.send(topic_name(topic, run_mode), key=key.encode(), value=one.encode()) for topic, key, one in messages]
        for acknowledgement in sent:
            await acknowledgement

    async def _start(self, name: str, service: Service, health: Health) -> None:
        async def run() -> None:
            await service.run()
            if service in self._running:
                raise BusError(f"the {name} service ended early")

        self._running[service] = self.spawn(run(), name)
        await wait_until(lambda: health.ready)


@contextlib.asynccontextmanager
async def running_pipeline(bus: Bus, settings: Settings, clock: Clock) -> AsyncIterator[Pipeline]:
    """Yield a pipeline; stop it and close the bus when the context ends, whatever it ends with."""
    try:
        async with asyncio.TaskGroup() as tasks:
            pipeline = Pipeline(bus, settings, clock, tasks)
            try:
                yield pipeline
            finally:
                await pipeline.stop()
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None  # the failure that cancelled the others
    finally:
        if hasattr(pipeline, "producer"):
            await pipeline.producer.close()
        await bus.close()


async def wait_until(condition: Callable[[], bool], timeout_s: float | None = None) -> bool:
    """Return True once `condition()` holds, False after `timeout_s`."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            while not condition():  # noqa: ASYNC110 - counts have no event
                await asyncio.sleep(_POLL_S)
            return True
    return False
