"""`memory://`: a whole broker inside one process, for the demo, replay and unit tests.

Services that share topics share one `MemoryBus` object. Only a poll's own timeout waits on the wall clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from aiokafka.partitioner import DefaultPartitioner

from services.core.bus.error_text import closed, not_read, too_large, unknown_partition
from services.core.bus.memory_group import Group, MemoryConsumer
from services.core.bus.memory_log import Cursor, TopicLog, Topics, Waker, poll
from services.core.bus.port import BusError, Headers, NewTopic, Position, Record, TopicInfo, TopicPartition
from services.core.clock import Clock

_partition_of: Final = DefaultPartitioner()


class MemoryProducer:
    """Appends at once. See `Producer` for what each method promises."""

    def __init__(self, topics: Topics, clock: Clock, client_id: str, before_write: Callable[[], None]) -> None:
        """Make a producer; `clock` gives the append time."""
        self._before_write = before_write
        self._topics = topics
        self._clock = clock
        self._client_id = client_id
        self._closed = False
        self._keyed: dict[tuple[str, bytes | None], tuple[TopicLog, int]] = {}
        """Where each key goes: hashing a key takes longer than the rest of `send`."""

    async def send(
        self,
        topic: str,
        *,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = (),
        timestamp_ms: int | None = None,
        partition: int | None = None,
    ) -> Awaitable[Position]:
        """Append a record and return its acknowledgement."""
        if self._closed:
            raise BusError(closed("producer", self._client_id))
        self._before_write()
        log, hashed = self._keyed.get((topic, key)) or self._place(topic, key)
        at = hashed if partition is None else partition
        if not 0 <= at < len(log.partitions):
            raise BusError(unknown_partition(TopicPartition(topic, at), len(log.partitions)))
        acknowledgement: asyncio.Future[Position] = asyncio.get_running_loop().create_future()
        size = len(key or b"") + len(value or b"") + sum(len(name) + len(content) for name, content in headers)
        if size > log.max_message_bytes:
            acknowledgement.set_exception(BusError(too_large(topic, size, log.max_message_bytes)))
            return acknowledgement
        at_ms = timestamp_ms if log.create_time and timestamp_ms is not None else self._clock.now_ms()
        acknowledgement.set_result(log.partitions[at].append(key, value, headers, at_ms))
        log.grown.wake()
        return acknowledgement

    async def flush(self) -> None:
        """Return: everything is acknowledged already."""

    async def close(self) -> None:
        """Close."""
        self._closed = True

    def _place(self, topic: str, key: bytes | None) -> tuple[TopicLog, int]:
        log = self._topics.topic(topic)
        partition: int = _partition_of(key, range(len(log.partitions)), ())
        if key is not None:
            if len(self._keyed) >= _MAX_KEYS:
                self._keyed.clear()
            self._keyed[topic, key] = log, partition
        return log, partition


_MAX_KEYS: Final = 100_000
"""Keys remembered at most by one producer, some 20 MB."""


class MemoryReader:
    """Reads chosen partitions. See `Reader` for what each method promises."""

    def __init__(self, topics: Topics, client_id: str) -> None:
        """Make a reader that reads nothing yet."""
        self._topics = topics
        self._client_id = client_id
        self._cursor = Cursor(topics)
        self._changed = Waker()
        self._closed = False

    async def beginning_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Return each partition's first offset."""
        return {partition: self._topics.partition(partition).start for partition in partitions}

    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Return each partition's next offset."""
        return {partition: self._topics.partition(partition).end for partition in partitions}

    async def offsets_for_times(self, times: Mapping[TopicPartition, int]) -> dict[TopicPartition, int | None]:
        """Return each partition's first offset of at least that time."""
        return {partition: self._topics.partition(partition).offset_for_time(at_ms) for partition, at_ms in times.items()}

    async def read(self, start: Mapping[TopicPartition, int]) -> None:
        """Read from these offsets on."""
        self._cursor.assign(start)
        self._changed.wake()

    def position(self, partition: TopicPartition) -> int:
        """Return the next offset to be read."""
        offset = self._cursor.position(partition)
        if offset is None:
            raise BusError(not_read(self._client_id, partition))
        return offset

    async def poll(self, *, timeout_ms: int, max_records: int = 500) -> list[Record]:
        """Return the next records."""
        return await poll(self._take, self._wakers, timeout_ms=timeout_ms, max_records=max_records)

    async def close(self) -> None:
        """Close."""
        self._closed = True
        self._changed.wake()

    def _take(self, max_records: int) -> list[Record]:
        if self._closed:
            raise BusError(closed("reader", self._client_id))
        return self._cursor.take(max_records)

    def _wakers(self) -> tuple[Waker, ...]:
        return (self._changed, *self._cursor.grown)


class MemoryAdmin:
    """Looks at and creates topics. See `Admin` for what each method promises."""

    def __init__(self, topics: Topics) -> None:
        """Make an admin."""
        self._topics = topics

    async def describe(self, topics: Sequence[str]) -> dict[str, TopicInfo]:
        """Return each topic that exists."""
        return {name: found.info for name in topics if (found := self._topics.find(name)) is not None}

    async def create(self, topics: Sequence[NewTopic]) -> None:
        """Create those topics that do not exist yet."""
        for new in topics:
            self._topics.create(new)

    async def truncate(self, topics: Sequence[str]) -> None:
        """Delete every record of these topics."""
        for name in topics:
            log = self._topics.topic(name)
            for partition in log.partitions:
                partition.truncate()
            log.grown.wake()

    async def close(self) -> None:
        """Close."""


class MemoryBus:
    """One in-process broker. Everything made from one object sees the same topics and groups."""

    def __init__(self, clock: Clock) -> None:
        """Start without topics; `clock` stamps records on topics whose time is LogAppendTime, the default here."""
        self._clock = clock
        self._topics = Topics()
        self._groups: dict[str, Group] = {}

    @property
    def address(self) -> str:
        """Return `memory://`."""
        return "memory://"

    async def producer(
        self, *, client_id: str, delivery_timeout_ms: int = 30_000, before_write: Callable[[], None] = lambda: None
    ) -> MemoryProducer:
        """Return a producer; it acknowledges at once, whatever its timeout."""
        del delivery_timeout_ms
        return MemoryProducer(self._topics, self._clock, client_id, before_write)

    async def consumer(self, *, group: str, client_id: str, instance_id: str | None = None) -> MemoryConsumer:
        """Return a member of `group`, not yet started."""
        if group not in self._groups:
            self._groups[group] = Group(group, self._topics)
        return MemoryConsumer(self._groups[group], client_id, instance_id)

    async def reader(self, *, client_id: str) -> MemoryReader:
        """Return a reader."""
        return MemoryReader(self._topics, client_id)

    async def admin(self) -> MemoryAdmin:
        """Return an admin."""
        return MemoryAdmin(self._topics)

    async def close(self) -> None:
        """Wait for rebalances that are under way."""
        for group in self._groups.values():
            await group.settle()
