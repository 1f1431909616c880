"""The fusion worker on an in-process bus and a virtual clock, which moves from instant to instant.

The worker is the one that runs on Kafka; only the clock, the bus and what drives them differ. The clock stops while an engine answers,
so that each decision is made at the instant of its bar, however long the engine takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from schemas import Instrument, Restatement, Topic, topic_name
from services.backtest.feed import MODE, Step
from services.core.bus import Producer, Reader, Record, TopicPartition
from services.core.bus.memory import MemoryBus
from services.core.clock import VirtualClock
from services.core.table_inputs import table_specs
from services.core.topic_admin import ensure_topics
from services.fusion.rooms import WorkerDependencies
from services.fusion.worker import FusionWorker

_CLIENT: Final = "aquiline-backtest"
_START_S: Final = 0.01
_MOST_HELD: Final = 4_096
"""Records appended before those that were read are deleted from the bus: 100,000 bars would take half a gigabyte."""
SIGNALS_TOPIC: Final = topic_name(Topic.STRATEGY_SIGNALS, MODE)
AUDIT_TOPIC: Final = topic_name(Topic.SIGNAL_AUDIT, MODE)
_READ: Final = (
    *(topic_name(topic, MODE) for topic in (Topic.MARKET_FEATURES, Topic.VISION_FEATURES, Topic.DEAD_LETTERS)),
    SIGNALS_TOPIC,
    AUDIT_TOPIC,
)


class VirtualWorker:
    """One worker. `load` the history, `start`, then `play` one step after the other."""

    def __init__(self, begins_ms: int) -> None:
        """Start a clock at `begins_ms`."""
        self.clock = VirtualClock(begins_ms)
        self.bus = MemoryBus(self.clock)
        self.worker: FusionWorker
        self._producer: Producer
        self._reader: Reader
        self._running: asyncio.Task[None] | None = None
        self._fed = 0
        """Records appended since the worker's start."""
        self._held = 0
        """Records appended since the bus was last emptied."""
        self._tables = frozenset(topic_name(name, MODE) for name in table_specs())
        self.appended: list[Record] = []
        """Appended records except signals, for the run's log; whoever writes them clears the list."""

    async def open(self, instruments: Sequence[Instrument], restatements: Sequence[Restatement]) -> None:
        """Create the topics, and publish instruments, splits and dividends."""
        admin = await self.bus.admin()
        # One partition, so that records of an instant are read in the order of the data.
        await ensure_topics(admin, MODE, 1)
        self._producer = await self.bus.producer(client_id=_CLIENT)
        for topic, messages in ((Topic.INSTRUMENTS, instruments), (Topic.INSTRUMENT_EVENTS, restatements)):
            for message in messages:
                await self._append(topic_name(topic, MODE), message.symbol.encode(), message.encode())

    async def load(self, step: Step) -> None:
        """Append records from before the worker's start; they trigger nothing."""
        self.clock.advance_to(step.at_ms)
        for topic, key, value in step.fed:
            await self._append(topic, key, value)

    async def load_signal(self, at_ms: int, key: bytes, value: bytes) -> None:
        """Append a signal or cancel that an earlier process published at that time, so that the worker knows of it."""
        self.clock.advance_to(max(at_ms, self.clock.now_ms()))
        await self._append(SIGNALS_TOPIC, key, value)

    async def start(self, dependencies: WorkerDependencies) -> None:
        """Start the worker, and return once it has rebuilt its books from what was loaded."""
        self._reader = await self.bus.reader(client_id=_CLIENT)
        outputs = [TopicPartition(SIGNALS_TOPIC, 0), TopicPartition(AUDIT_TOPIC, 0)]
        await self._reader.read(await self._reader.end_offsets(outputs))
        self.worker = await FusionWorker.open(dependencies)
        self._running = asyncio.create_task(self.worker.run(), name="fusion")
        while not (dependencies.health.ready and self.worker.caught_up):
            self._check()
            await asyncio.sleep(_START_S)

    async def play(self, step: Step) -> list[Record]:
        """Advance to the step's instant, append its records, and return the signals and audit records published up to then."""
        await self._go_to(step.at_ms)
        tables = [fed for fed in step.fed if fed.topic in self._tables]
        for topic, key, value in tables:
            await self._append(topic, key, value)
        if tables:
            await self.worker.catch_up_tables()
        bars = [fed for fed in step.fed if fed.topic not in self._tables]
        for topic, key, value in bars:
            await self._append(topic, key, value)
        self._fed += len(bars)
        while self.worker.accounts.records.total() < self._fed:
            self._check()
            await asyncio.sleep(0)
        await self.worker.settle()
        return await self._outputs()

    async def reach(self, at_ms: int) -> list[Record]:
        """Advance to an instant, and return the signals and audit records published before it."""
        await self._go_to(at_ms)
        return await self._outputs()

    @property
    def at_rest(self) -> bool:
        """Return whether every trigger has ended."""
        accounts = self.worker.accounts
        return accounts.outcomes.total() == accounts.triggers

    async def close(self) -> None:
        """Stop the worker."""
        if self._running is not None:
            self.worker.stop()
            await self._running
            self._running = None
        await self.bus.close()

    async def _append(self, topic: str, key: bytes, value: bytes | None) -> None:
        _, partition, offset, at_ms = await (await self._producer.send(topic, key=key, value=value))
        self._held += 1
        if topic != SIGNALS_TOPIC:
            self.appended.append(Record(topic, partition, offset, at_ms, key, value))

    async def _go_to(self, at_ms: int) -> None:
        """Move the clock, stopping at every time that a task waits for."""
        while (wake_ms := self.clock.next_wake_ms()) is not None and wake_ms <= at_ms:
            self.clock.advance_to(wake_ms)
            await self.worker.catch_up_tables()
            await asyncio.sleep(0)  # the woken task runs
            await self.worker.settle()
        self.clock.advance_to(at_ms)
        await self.worker.catch_up_tables()

    async def _outputs(self) -> list[Record]:
        records: list[Record] = []
        while found := await self._reader.poll(timeout_ms=0):
            records += found
        self._held += len(records)
        if self._held > _MOST_HELD and self.at_rest:
            await (await self.bus.admin()).truncate(_READ)
            self._held = 0
        return records

    def _check(self) -> None:
        if self._running is not None and self._running.done():
            self._running.result()
            raise RuntimeError("the fusion worker ended unexpectedly")
