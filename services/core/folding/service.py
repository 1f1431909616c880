"""The service: reads one topic, folds it into books by partition, publishes another, and commits behind acknowledgements.

Every record is folded, ignored or dead-lettered, and counted; an offset is committed once all that its record and those before it
made is acknowledged. Delivery is at least once.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic

import structlog

from schemas import Message, Topic, topic_name
from services.core.bus import Bus, BusError, Consumer, Headers, Position, Producer, Reader, Record, TopicPartition
from services.core.clock import Clock
from services.core.dead_letters import send_dead_letter
from services.core.folding.disposition import Books, Counts, D
from services.core.folding.partition import Partition
from services.core.folding.producer_spans import ProducerSpans
from services.core.folding.takeover import commit_finished, take_over
from services.core.health import Health
from services.core.instruments import Instruments
from services.core.lag import LagMonitor
from services.core.metrics import DEAD_LETTERS, RECORDS, UNKNOWN_FIELDS
from services.core.session_gauge import set_session_gauge
from services.core.settings import Settings
from services.core.topic_admin import check_same_partitions
from services.core.tracing import Tracer

_log = structlog.get_logger()

_POLL_MS: Final = 200
_HOUSEKEEPING_S: Final = 1.0
# Above this many unfinished records of a partition the oldest is waited for: it bounds memory when the broker is slow.
_MAX_UNFINISHED: Final = 10_000


@dataclass(frozen=True, slots=True)
class Role:
    """A service's client id, group, input topic and output topic."""

    client_id: str
    group: str
    source: Topic
    target: Topic
    span: str
    """Name of its spans."""
    first: bool = False
    """Whether it starts the trace of a record that comes without one: true for one of the services that read a topic."""


@dataclass(slots=True)
class _Batch:
    """How far a batch of records goes in each partition, and the acknowledgements of its dead letters."""

    ends: dict[TopicPartition, int] = field(default_factory=dict)
    acks: list[Awaitable[Position]] = field(default_factory=list)


class FoldingService(ABC, Generic[D]):
    """One member of a group. `run` it once; `counts` may be read at any time."""

    counts: Counts

    def __init__(self, bus: Bus, settings: Settings, clock: Clock, health: Health, role: Role) -> None:
        """Make a service; it is ready once it has read the instruments and has partitions."""
        self._bus = bus
        self._settings = settings
        self._clock = clock
        self._role = role
        self._health = health
        self._health.require("instruments", "assigned")
        self._instruments = Instruments(bus, clock, settings.run_mode, f"{role.client_id}-instruments")
        self._source = topic_name(role.source, settings.run_mode)
        self._target = topic_name(role.target, settings.run_mode)
        self._dead_letters = topic_name(Topic.DEAD_LETTERS, settings.run_mode)
        self._tracer = Tracer.of(settings, role.span)
        self._spans = ProducerSpans(self._tracer, clock, role.span, first=role.first)
        self._partitions: dict[TopicPartition, Partition[D]] = {}
        # Held while a batch is in work, so that partitions change hands between batches only.
        self._folding = asyncio.Lock()
        self._stopping = False
        self._producer: Producer
        self._reader: Reader
        self._consumer: Consumer

    @abstractmethod
    def begin_books(self) -> Books[D]:
        """Return a partition's books, empty."""

    @abstractmethod
    async def publish(self, taken: AsyncIterator[tuple[Record, D]]) -> Sequence[Awaitable[Position]]:
        """Publish what a batch made, and return the acknowledgements to come; each record is folded as it is asked for."""

    def count(self, result: D) -> None:
        """Count a record."""
        self.counts.add(result)
        RECORDS.labels(self._role.source.value, result.disposition.value).inc()
        UNKNOWN_FIELDS.inc(result.unknown_fields)
        if result.refused is not None:
            DEAD_LETTERS.labels(result.refused.reason.value).inc()

    def made(self, record: Record) -> Headers:
        """Return the headers of the message made from `record`. Call it once, right before sending."""
        return self._spans.made(record, self._target)

    async def send(self, record: Record, message: Message, headers: Headers) -> Awaitable[Position]:
        """Send a message made from `record`, with its key and timestamp, to its partition, however its producer hashes keys."""
        return await self._producer.send(
            self._target,
            key=record.key,
            value=message.encode(),
            headers=headers,
            timestamp_ms=record.timestamp_ms,
            partition=record.partition,
        )

    def stop(self) -> None:
        """Make `run` finish and commit the work it has begun, and return."""
        self._stopping = True

    async def run(self) -> None:
        """Work until `stop`; raise BusError when topics are not as they must be, or the broker does not take a record."""
        await check_same_partitions(self._bus, self._source, self._target, self._dead_letters)
        await self._instruments.start()
        await self._instruments.load_calendars()
        self._health.set("instruments")
        client_id = self._role.client_id
        self._producer = await self._bus.producer(client_id=client_id)
        self._reader = await self._bus.reader(client_id=f"{client_id}-rebuild")
        self._consumer = await self._bus.consumer(group=self._role.group, client_id=client_id, instance_id=self._settings.bus.instance_id)
        lag = asyncio.create_task(LagMonitor(self._bus, f"{client_id}-lag", self._finished).run(), name="lag")
        try:
            await self._consumer.start([self._source], self)
            await self._work()
        finally:
            lag.cancel()
            await asyncio.wait([lag])
            # Leaving the group commits what is acknowledged (`on_revoked`), so it comes first.
            await self._consumer.close()
            await self._producer.close()
            await self._reader.close()
            await self._instruments.close()
            if self._tracer is not None:
                await self._tracer.close()
        _log.info("drained", records=self.counts.records)

    async def on_assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """Rebuild the books of the partitions that are new here."""
        self._health.excuse("rebuilding")
        try:
            async with self._folding:
                new = partitions - self._partitions.keys()
                self._partitions |= await take_over(new, self._consumer, self._reader, self.begin_books)
        finally:
            self._health.end_excuse("rebuilding")
        self._health.set("assigned")

    async def on_revoked(self, partitions: frozenset[TopicPartition]) -> None:
        """Wait for what is under way on `partitions`, commit it and forget their books."""
        self._health.clear("assigned", "rebalancing")
        async with self._folding:
            lost = {tp: self._partitions[tp] for tp in partitions if tp in self._partitions}
            try:
                await self._producer.flush()
                for partition in lost.values():
                    await partition.settle()
            except BusError as error:
                # The next owner reads from the last commit and publishes the same bars again.
                _log.warning("drain_failed", reason=str(error))
            await commit_finished(self._consumer, lost)
            for tp in lost:
                del self._partitions[tp]

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        due_s = loop.time() + _HOUSEKEEPING_S
        while not self._stopping:
            records = await self._consumer.poll(timeout_ms=_POLL_MS)
            async with self._folding:
                await self._take(records)
                for tp, partition in self._partitions.items():
                    # A log may end in offsets without a record: left out, they would show as lag for ever.
                    if (position := self._consumer.position(tp)) is not None:
                        partition.skip_to(position)
                for partition in self._partitions.values():
                    await partition.settle(at_most=_MAX_UNFINISHED)
                if loop.time() >= due_s:
                    due_s = loop.time() + _HOUSEKEEPING_S
                    await commit_finished(self._consumer, self._partitions)
                    await self._instruments.refresh()
                    set_session_gauge(self._instruments.calendars(), self._settings.run_mode, self._clock.now_ms())
            self._health.progress()

    def _finished(self) -> dict[TopicPartition, int]:
        return {tp: partition.finished for tp, partition in self._partitions.items()}

    async def _take(self, records: Sequence[Record]) -> None:
        batch = _Batch()
        acks = await self.publish(self._fold(records, batch))
        acknowledged = asyncio.gather(*batch.acks, *acks)
        for tp, end in batch.ends.items():
            self._partitions[tp].begin(end, acknowledged)

    async def _fold(self, records: Sequence[Record], batch: _Batch) -> AsyncIterator[tuple[Record, D]]:
        for record in records:
            tp = TopicPartition(record.topic, record.partition)
            partition = self._partitions.get(tp)
            if partition is None or record.offset < partition.next_offset:
                continue  # polled before the partition moved; its owner reads it again
            result = partition.books.take(record)
            if result.may_change_on_refresh and await self._instruments.refresh_for_record():
                result = partition.books.take_again(record, result)
            batch.ends[tp] = record.offset + 1
            self.count(result)
            if result.refused is not None:
                batch.acks.append(await send_dead_letter(record, result.refused, self._producer, self._dead_letters, self._clock))
            yield record, result
            # A batch takes some 0.2 s, and on the in-process bus nothing in it waits: others on this loop get their turn.
            await asyncio.sleep(0)
