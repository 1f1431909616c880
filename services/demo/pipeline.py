"""The services of the demo in one process: bus, market service, vision service, fusion worker and console, from start to stop."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Sequence
from typing import Any, Final

from prometheus_client import generate_latest
from pydantic import SecretStr

from schemas import Candle, Instrument, InstrumentEvent, Topic, VisionFeatures, topic_name
from services.console.service import ConsoleService
from services.core import memory_tuning
from services.core.bus import Bus, BusError, Producer
from services.core.bus.topic_reader import partitions_of
from services.core.calendar import SessionCalendar
from services.core.clock import Clock, SystemClock
from services.core.health import Health
from services.core.lifecycle import Service
from services.core.metrics import REGISTRY
from services.core.settings import Settings, SettingsError
from services.core.topic_admin import empty_topics
from services.feeds.samples import CALENDAR, load_instruments, load_splits
from services.fusion.service import engine_info, make_worker
from services.fusion.worker import FusionWorker
from services.inference.engine import EngineError, EngineInfo
from services.market.service import MarketService
from services.vision.forecaster import ForecasterError
from services.vision.loading import load_forecaster
from services.vision.service import VisionService

PARTITIONS: Final = 4
"""Partitions of topics that the demo creates."""
_POLL_S: Final = 0.02


class Pipeline:
    """All services over one bus. One that fails, or ends before it is stopped, cancels the task that runs the pipeline."""

    market: MarketService
    worker: FusionWorker
    vision: VisionService | None = None

    def __init__(self, bus: Bus, producer: Producer, settings: Settings, clock: Clock, tasks: asyncio.TaskGroup) -> None:
        """Start nothing yet; services run as `tasks`."""
        self.bus = bus
        self._producer = producer
        self._settings = settings
        self._clock = clock
        self._tasks = tasks
        self._running: dict[Service, asyncio.Task[None]] = {}
        self._configurations: list[Settings] = []
        """The console's settings and those of each worker so far, with which the console rebuilds prompts."""
        self.published: set[tuple[str, int]] = set()
        """Symbol and close of each candle on the bus."""

    async def start(self, symbols: Collection[str], *, live_vision: bool) -> None:
        """Empty the topics, publish what is known of `symbols`, start market and vision service; raise BusError, SettingsError."""
        await asyncio.to_thread(SessionCalendar.of, CALENDAR)  # exchange-calendars imports pandas, which takes seconds
        settings, vision = self._settings, self._settings.vision
        await empty_topics(self.bus, settings.run_mode, PARTITIONS)
        await self.publish(Topic.INSTRUMENTS, [one for one in load_instruments(settings.run_mode) if one.symbol in symbols])
        await self.publish(Topic.INSTRUMENT_EVENTS, [one for one in load_splits(settings.run_mode) if one.symbol in symbols])
        self.market = MarketService(self.bus, settings, self._clock, health := Health())
        await self._start("market", self.market, health)
        if live_vision:
            try:
                model = await asyncio.to_thread(load_forecaster, vision.weights_file, device=vision.device)
            except ForecasterError as error:
                raise SettingsError(f"--vision live: {error}; or play the recorded features: --vision recorded") from error
            self.vision = VisionService(self.bus, settings, self._clock, model, health := Health())
            await self._start("vision", self.vision, health)

    async def start_worker(self, settings: Settings) -> None:
        """Start the fusion worker; return once it has rebuilt its books and sent the prefixes ahead to the engine."""
        self._configurations.append(settings)
        self.worker = await make_worker(self.bus, settings, self._clock, health := Health())
        memory_tuning.freeze()  # as in a process of its own
        await self._start("fusion", self.worker, health)
        await self.worker.prewarmer.idle()

    async def start_console(self) -> str:
        """Start the console; return its address with the token of this run. Raise SettingsError when its port is in use."""
        token = self._settings.console.token or SecretStr(secrets.token_urlsafe(16))
        with_token = self._settings.console.model_copy(update={"token": token})
        self._configurations.append(self._settings.model_copy(update={"console": with_token}))
        console = ConsoleService(self.bus, self._configurations, self._clock, health := Health(), pages=_own_metrics)
        await self._start("console", console, health)
        return f"{console.url}/#token={token.get_secret_value()}"

    async def stop(self, *services: Service) -> None:
        """Drain `services`, or every service, the newest first; the bus stays open for readers."""
        for service in services or tuple(reversed(self._running)):
            task = self._running.pop(service)
            service.stop()
            await asyncio.wait([task])

    async def publish(self, topic: Topic, messages: Sequence[Candle | VisionFeatures | Instrument | InstrumentEvent]) -> None:
        """Publish messages by their symbols, and return once all are acknowledged."""
        name = topic_name(topic, self._settings.run_mode)
        for acknowledgement in [await self._producer.send(name, key=one.symbol.encode(), value=one.encode()) for one in messages]:
            await acknowledgement
        self.published.update((one.symbol, one.ts_close_ms) for one in messages if isinstance(one, Candle))

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run `work` beside the services; its failure ends the run as theirs does."""
        return self._tasks.create_task(work, name=name)

    async def all_processed(self, timeout_s: float | None = None) -> None:
        """Return once, or `timeout_s` after, every candle is processed, and the broker has acknowledged the features made of those."""
        market, vision = self.market, self.vision
        producers = [one for one in (market, vision) if one is not None]
        await wait_until(lambda: all(one.counts.records >= len(self.published) for one in producers), timeout_s)
        while (  # noqa: ASYNC110 - acknowledgements have no event
            await self.length(Topic.MARKET_FEATURES) < market.counts.features
            or (vision is not None and await self.length(Topic.VISION_FEATURES) < vision.counts.due)
        ):
            await asyncio.sleep(_POLL_S)

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
    producer = await bus.producer(client_id="aquiline-demo")
    try:
        async with asyncio.TaskGroup() as tasks:
            pipeline = Pipeline(bus, producer, settings, clock, tasks)
            try:
                yield pipeline
            finally:
                await pipeline.stop()
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None  # the failure that cancelled the others
    finally:
        await producer.close()
        await bus.close()


async def wait_until(condition: Callable[[], bool], timeout_s: float | None = None) -> None:
    """Return once `condition()` holds, or after `timeout_s`."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            while not condition():  # noqa: ASYNC110 - counts have no event
                await asyncio.sleep(_POLL_S)


async def engine_of(settings: Settings) -> EngineInfo:
    """Return what the engine says of itself; raise SettingsError when it does not answer."""
    try:
        return await engine_info(settings.engine, SystemClock())
    except EngineError as error:
        raise SettingsError(
            f"the engine at {' '.join(settings.engine.urls)} does not answer: {error.detail}. "
            "Start it, or leave --engine out and the demo starts its own"
        ) from error


async def _own_metrics() -> Sequence[str]:
    return [generate_latest(REGISTRY).decode()]
