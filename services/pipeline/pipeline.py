"""Runs services over one bus in this process: starts them in order, ends the run when one fails, and drains them newest first.

In production each is a process of its own. This is for runs that begin and end: the demo and benchmarks.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final

from schemas import SPECS, Candle, Instrument, InstrumentEvent, Topic, VisionFeatures, topic_name
from services.core import memory_tuning
from services.core.bus import Bus, BusError, Position, Producer
from services.core.bus.topic_reader import TimeRange, offsets_within, partitions_of
from services.core.calendar import SessionCalendar
from services.core.clock import Clock
from services.core.health import Health
from services.core.lifecycle import Service
from services.core.settings import Settings
from services.core.topic_admin import empty_topics
from services.fusion.deliver.accounts import Accounts
from services.fusion.service import connect_engine, make_worker
from services.fusion.worker import FusionWorker
from services.inference.engine import Engine
from services.market.service import MarketService
from services.pipeline.outputs import Outputs, OutputsFollower
from services.vision.forecaster import Forecaster
from services.vision.service import VisionService

_CLIENT: Final = "aquiline-pipeline"
_POLL_S: Final = 0.02
_CHUNK: Final = 250
_INPUTS: Final = (Topic.MARKET_FEATURES, Topic.VISION_FEATURES)
_TOPICS: Final = {kind: spec.topic for spec in SPECS.values() for kind in spec.messages}


class Pipeline:
    """Services over one bus. One that fails, or ends before it is stopped, cancels the task that runs the pipeline."""

    market: MarketService
    vision: VisionService | None = None
    _follower: OutputsFollower

    def __init__(self, bus: Bus, producer: Producer, settings: Settings, clock: Clock, tasks: asyncio.TaskGroup) -> None:
        """Start nothing yet; services run as `tasks`."""
        self.bus = bus
        self.workers: Sequence[FusionWorker] = ()
        """The workers started last."""
        self.configurations: list[Settings] = []
        """The settings of all workers so far."""
        self.newest_ms: dict[str, int] = {}
        """Close of the newest candle published, by symbol."""
        self._producer = producer
        self._settings = settings
        self._clock = clock
        self._tasks = tasks
        self._running: dict[Service, asyncio.Task[None]] = {}
        self._candles = 0
        self._inputs_before = 0
        self._unacknowledged: list[Awaitable[Position]] = []

    async def open_topics(self, instruments: Sequence[Instrument], events: Sequence[InstrumentEvent], partitions: int) -> None:
        """Empty the topics, of which missing ones get `partitions`, and publish what is known of the instruments; raise BusError."""
        for calendar in {one.calendar for one in instruments}:
            # exchange-calendars imports pandas, which takes seconds: services on this loop would wait.
            await asyncio.to_thread(SessionCalendar.of, calendar)
        await empty_topics(self.bus, self._settings.run_mode, partitions)
        await self.publish([*instruments, *events])
        await self.acknowledged()

    async def start_features(self, forecaster: Forecaster | None = None) -> None:
        """Start the market service and, with a forecaster, the vision service; raise BusError, SettingsError."""
        self.market = MarketService(self.bus, self._settings, self._clock, health := Health())
        await self.start("market", self.market, health)
        if forecaster is not None:
            self.vision = VisionService(self.bus, self._settings, self._clock, forecaster, health := Health())
            await self.start("vision", self.vision, health)

    async def start_workers(self, settings: Settings, outputs: Outputs, engines: Sequence[Engine] = ()) -> None:
        """Start a worker beside each of `engines`, all of one group; by default one, beside the engine of `settings`.

        Returns once they have rebuilt their books and sent the prefixes ahead. What they publish is added to `outputs`. Raises
        BusError, SettingsError.
        """
        self._follower = OutputsFollower(self.bus, settings.run_mode, outputs, health := Health())
        await self.start("outputs", self._follower, health)
        self._inputs_before = await self._length(*_INPUTS)
        self.configurations.append(settings)
        engines = engines or [connect_engine(settings.engine, self._clock)]
        healths = [Health() for _ in engines]
        self.workers = [
            await make_worker(self.bus, settings, self._clock, health, engine) for health, engine in zip(healths, engines, strict=True)
        ]
        memory_tuning.freeze()  # as in a process of its own
        await asyncio.gather(*(self.start("fusion", worker, health) for worker, health in zip(self.workers, healths, strict=True)))
        await asyncio.gather(*(worker.prewarmer.idle() for worker in self.workers))

    async def stop_workers(self) -> None:
        """Drain the workers, and return once all that they published is in the outputs."""
        await self.stop(*self.workers, self._follower)

    async def start(self, name: str, service: Service, health: Health) -> None:
        """Start a service, and return once it is ready."""

        async def run() -> None:
            await service.run()
            if service in self._running:
                raise BusError(f"the {name} service ended early")

        self._running[service] = self.spawn(run(), name)
        await wait_until(lambda: health.ready)

    async def stop(self, *services: Service) -> None:
        """Drain `services`, or every service, the newest first; the bus stays open for readers."""
        for service in services or tuple(reversed(self._running)):
            task = self._running.pop(service)
            service.stop()
            await asyncio.wait([task])

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run `work` beside the services; its failure ends the run as theirs does."""
        return self._tasks.create_task(work, name=name)

    async def publish(self, messages: Sequence[Candle | VisionFeatures | Instrument | InstrumentEvent]) -> None:
        """Publish each message to its topic by its symbol; `acknowledged` waits for the broker."""
        for one in messages:
            if isinstance(one, Candle):
                self._candles += 1
                self.newest_ms[one.symbol] = one.ts_close_ms
            name = topic_name(_TOPICS[type(one)], self._settings.run_mode)
            self._unacknowledged.append(await self._producer.send(name, key=one.symbol.encode(), value=one.encode()))

    async def load(self, candles: Sequence[Candle], on_progress: Callable[[int], None] = lambda _: None) -> None:
        """Publish candles, and return once they are processed; `on_progress` is called with how many are."""
        for start in range(0, len(candles), _CHUNK):
            await self.publish(candles[start : start + _CHUNK])
            await self.processed()
            on_progress(min(len(candles), start + _CHUNK))

    async def acknowledged(self) -> None:
        """Return once the broker has acknowledged everything published; raise BusError when it did not take a record."""
        sent, self._unacknowledged = self._unacknowledged, []
        for acknowledgement in sent:
            await acknowledgement

    async def processed(self, timeout_s: float | None = None) -> None:
        """Return once, or `timeout_s` after, every candle is processed, and the broker has acknowledged the features made of those."""
        await self.acknowledged()
        market, vision = self.market, self.vision
        producers = [one for one in (market, vision) if one is not None]
        await wait_until(lambda: all(one.counts.records >= self._candles for one in producers), timeout_s)
        while (  # noqa: ASYNC110 - acknowledgements have no event
            await self._length(Topic.MARKET_FEATURES) < market.counts.features
            or (vision is not None and await self._length(Topic.VISION_FEATURES) < vision.counts.due)
        ):
            await asyncio.sleep(_POLL_S)

    async def decided(self, timeout_s: float | None = None, *, unless: Callable[[], bool] = lambda: False) -> int:
        """Return once every trigger of what was published has its outcome, `unless` holds, or after `timeout_s`.

        The result is how many records the input topics have gained since the workers started.
        """
        await self.processed(timeout_s)
        inputs = await self._length(*_INPUTS) - self._inputs_before
        await wait_until(lambda: unless() or (self.accounts.records.total() >= inputs and self.settled), timeout_s)
        return inputs

    @property
    def accounts(self) -> Accounts:
        """Return the counts of all workers together."""
        together = Accounts()
        for worker in self.workers:
            together.add(worker.accounts)
        return together

    @property
    def settled(self) -> bool:
        """Return whether every trigger so far has its outcome."""
        return self.accounts.outcomes.total() == self.accounts.triggers

    async def _length(self, *topics: Topic) -> int:
        """Return how many records `topics` hold together."""
        reader = await self.bus.reader(client_id=_CLIENT)
        try:
            names = [topic_name(topic, self._settings.run_mode) for topic in topics]
            partitions = [one for name in names for one in await partitions_of(self.bus, name)]
            return sum(map(len, (await offsets_within(reader, partitions, TimeRange())).values()))
        finally:
            await reader.close()


@contextlib.asynccontextmanager
async def running_pipeline(bus: Bus, settings: Settings, clock: Clock) -> AsyncIterator[Pipeline]:
    """Yield a pipeline; stop it and close the bus when the context ends, whatever it ends with."""
    producer = await bus.producer(client_id=_CLIENT)
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
    if timeout_s is not None and timeout_s <= 0:
        # A timeout takes the loop twice around. A burst that is late on a busy machine would fall further behind.
        await asyncio.sleep(0)
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            while not condition():  # noqa: ASYNC110 - counts have no event
                await asyncio.sleep(_POLL_S)
