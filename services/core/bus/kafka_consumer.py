"""The Kafka consumer: a group member whose partitions stay paused until its listener has taken them over.

How a rebalance goes: (1) aiokafka's heartbeats say that the group rebalances; (2) `on_revoked` runs, heartbeats going on; (3) the
member joins again; (4) in the same step in which aiokafka learns of the partitions each is paused, so that nothing is read from a
place nobody chose; (5) each gets its committed offset, if there is one; (6) `on_assigned` runs in a task of ours, since aiokafka
sends no heartbeat while its own callback runs and a rebuild may take longer than the session; (7) the partitions that have a
committed offset or were sought are resumed. A rebalance that comes before (7) cancels the take-over.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence

from aiokafka import AIOKafkaConsumer
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.structs import OffsetAndMetadata
from aiokafka.structs import TopicPartition as KafkaPartition

from services.core.bus.error_text import not_held
from services.core.bus.kafka_client import TopicLookup
from services.core.bus.kafka_errors import as_bus_error
from services.core.bus.kafka_reader import FetchedRecords, fetch, position_of
from services.core.bus.port import BusError, Committed, RebalanceListener, Record, TopicPartition


class PausedRangeAssignor(RangePartitionAssignor):  # type: ignore[misc] # aiokafka has no types
    """Range assignment that calls `pause_all` in the very step in which aiokafka learns of its partitions."""

    def __init__(self, pause_all: Callable[[], None]) -> None:
        """Call `pause_all` on each assignment."""
        self._pause_all = pause_all

    def on_assignment(self, assignment: object) -> None:
        """Pause everything that is assigned."""
        del assignment
        self._pause_all()


class KafkaConsumer(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka has no types
    """See `Consumer` for what each method promises."""

    def __init__(
        self, make: Callable[[PausedRangeAssignor], AIOKafkaConsumer], group: str, client_id: str, request_timeout_ms: int
    ) -> None:
        """Make a member that has not joined yet, over the inner consumer that `make` returns for an assignor."""
        self._inner = make(PausedRangeAssignor(self._pause_assigned))
        self._group = group
        self._client_id = client_id
        self._request_timeout_s = request_timeout_ms / 1000
        self._lookup = TopicLookup(self._inner._client)  # noqa: SLF001 - one connection less
        self._listener: RebalanceListener | None = None
        self._held: frozenset[TopicPartition] = frozenset()
        self._positioned: set[TopicPartition] = set()
        self._paused: set[TopicPartition] = set()
        self._resumable = False
        self._take_over: asyncio.Task[None] | None = None
        self._one_at_a_time = asyncio.Lock()
        self._failure: Exception | None = None
        self._closed = False

    async def start(self, topics: Sequence[str], listener: RebalanceListener) -> None:
        """Join the group; `listener` is called in the background."""
        self._listener = listener
        try:
            with as_bus_error(f"joining group {self._group!r}"):
                await self._inner.start()
            FetchedRecords.install(self._inner)
            for topic in topics:
                await self._lookup.partitions(topic)
        except BaseException:
            await self._inner.stop()
            raise
        self._inner.subscribe(list(topics), listener=self)

    async def poll(self, *, timeout_ms: int, max_records: int = 500) -> list[Record]:
        """Return the next records; raise what the listener raised."""
        if self._failure is not None:
            raise self._failure
        with as_bus_error(f"reading in group {self._group!r}"):
            records = await fetch(self._inner, timeout_ms=timeout_ms, max_records=max_records)
        if self._failure is not None:
            raise self._failure
        return records

    def assignment(self) -> frozenset[TopicPartition]:
        """Return the partitions this member holds."""
        return self._held

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Read on from `offset`."""
        self._check_held([partition], "seek in")
        self._inner.seek(KafkaPartition(*partition), offset)
        self._positioned.add(partition)
        self._resume_ready([partition])

    def position(self, partition: TopicPartition) -> int | None:
        """Return the next offset to be read."""
        if partition not in self._positioned:
            return None  # what it is paused at until its listener or its commit places it
        return position_of(self._inner, partition)

    async def committed(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Committed | None]:
        """Return what the group last committed."""
        with as_bus_error(f"looking up group {self._group!r}'s commits"):
            async with asyncio.timeout(self._request_timeout_s):
                return await self._committed(partitions)

    async def commit(self, offsets: Mapping[TopicPartition, Committed]) -> None:
        """Commit for partitions that this member holds."""
        self._check_held(list(offsets), "commit")
        with as_bus_error(f"committing in group {self._group!r}"):
            async with asyncio.timeout(self._request_timeout_s):
                await self._inner.commit({KafkaPartition(*one): OffsetAndMetadata(*at) for one, at in offsets.items()})

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """Stop returning records of `partitions`."""
        self._check_held(partitions, "pause")
        self._paused.update(partitions)
        self._inner.pause(*(KafkaPartition(*partition) for partition in partitions))

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """Undo `pause`."""
        self._check_held(partitions, "resume")
        self._paused.difference_update(partitions)
        self._resume_ready(partitions)

    async def close(self) -> None:
        """Drain and leave the group; a static member keeps its partitions until its session times out."""
        if self._closed:
            return
        self._closed = True
        try:
            await self._give_up()
        finally:
            await self._inner.stop()

    async def on_partitions_revoked(self, revoked: object) -> None:
        """Let the listener drain; what it raises is kept for `poll`, since the group must go on."""
        del revoked
        try:
            await self._give_up()
        except Exception as error:  # noqa: BLE001 - raised again by poll
            self._failure = error

    async def on_partitions_assigned(self, assigned: object) -> None:
        """Start the take-over of what was assigned."""
        del assigned
        if not self._closed:
            self._take_over = asyncio.get_running_loop().create_task(self._take(self._held), name=f"take over {self._client_id}")

    def _pause_assigned(self) -> None:
        self._resumable = False
        self._positioned.clear()
        self._paused.clear()
        self._held = frozenset(TopicPartition(*partition) for partition in self._inner.assignment())
        for partition in self._inner.assignment():
            self._inner.pause(partition)
            self._inner.seek(partition, 0)  # a position, never read: without one and without a commit aiokafka raises

    async def _take(self, partitions: frozenset[TopicPartition]) -> None:
        assert self._listener is not None  # noqa: S101 - `start` sets it before joining
        try:
            for partition, committed in (await self._committed(sorted(partitions))).items():
                if committed is not None:
                    self.seek(partition, committed.offset)
            await self._listener.on_assigned(partitions)
        except Exception as error:  # noqa: BLE001 - raised again by poll
            self._failure = error
        else:
            self._resumable = True
            self._resume_ready(list(partitions))

    async def _give_up(self) -> None:
        async with self._one_at_a_time:
            self._resumable = False
            if self._take_over is not None:
                self._take_over.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await self._take_over
                self._take_over = None
            if self._held:
                self._inner.pause(*(KafkaPartition(*partition) for partition in self._held))
            try:
                if self._held and self._listener is not None:
                    await self._listener.on_revoked(self._held)
            finally:
                self._held = frozenset()

    def _resume_ready(self, partitions: Sequence[TopicPartition]) -> None:
        if self._resumable:
            ready = [partition for partition in partitions if partition in self._positioned and partition not in self._paused]
            self._inner.resume(*(KafkaPartition(*partition) for partition in ready))

    async def _committed(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Committed | None]:
        asked = [KafkaPartition(*partition) for partition in partitions]
        found = await self._inner._coordinator.fetch_committed_offsets(asked)  # noqa: SLF001 - one request for all of them
        return {
            partition: Committed(at.offset, at.metadata) if (at := found.get(kafka)) is not None and at.offset >= 0 else None
            for partition, kafka in zip(partitions, asked, strict=True)
        }

    def _check_held(self, partitions: Sequence[TopicPartition], verb: str) -> None:
        if foreign := sorted(set(partitions) - self._held):
            raise BusError(not_held(self._client_id, self._group, verb, foreign))
