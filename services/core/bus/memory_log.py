"""The in-process broker's logs: topics of partitions, and cursors that read them.

Nothing here waits on a clock; consumers wait for records on a `Waker`.
"""

from __future__ import annotations

import asyncio
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from services.core.bus.error_text import unknown_partition, unknown_topic
from services.core.bus.port import BusError, Headers, NewTopic, OffsetOutOfRangeError, Position, Record, TopicInfo, TopicPartition

DEFAULT_MAX_MESSAGE_BYTES: Final = 1_048_588
"""Kafka's default of `max.message.bytes`."""


class Waker:
    """Wakes every task that waits for something to happen."""

    def __init__(self) -> None:
        """Start with nobody waiting."""
        self._waiting: set[asyncio.Future[None]] = set()

    def wake(self) -> None:
        """Wake all that wait now."""
        if self._waiting:
            for future in self._waiting:
                if not future.done():
                    future.set_result(None)
            self._waiting.clear()

    @staticmethod
    async def wait(wakers: Iterable[Waker], until: float) -> bool:
        """Return True once one of `wakers` wakes, False when the loop's time `until` (seconds) passes first."""
        wakers = tuple(wakers)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for waker in wakers:
            waker._waiting.add(future)  # noqa: SLF001 - its own class
        try:
            async with asyncio.timeout_at(until):
                await future
        except TimeoutError:
            return False
        finally:
            for waker in wakers:
                waker._waiting.discard(future)  # noqa: SLF001 - its own class
        return True


class PartitionLog:
    """One partition: records with consecutive offsets from `start` to `end`."""

    def __init__(self, topic: str, partition: int) -> None:
        """Start empty at offset 0."""
        self.start = 0
        self._topic = topic
        self._partition = partition
        self._records: list[Record] = []
        self._latest_ms = array("q")
        """Running maximum of the timestamps: where it first reaches t stands the first record of at least t."""

    @property
    def end(self) -> int:
        """Return the next offset to be appended."""
        return self.start + len(self._records)

    def append(self, key: bytes | None, value: bytes | None, headers: Headers, timestamp_ms: int) -> Position:
        """Append a record and return where it is."""
        offset = self.start + len(self._records)
        if value is not None:
            # What orjson returns keeps the buffer that it was written in: 8 KB for a bar of 800 bytes, for as long as the log holds it.
            value = bytes(memoryview(value))
        self._records.append(Record(self._topic, self._partition, offset, timestamp_ms, key, value, tuple(headers)))
        latest = self._latest_ms
        latest.append(timestamp_ms if not latest or timestamp_ms > latest[-1] else latest[-1])
        return Position(self._topic, self._partition, offset, timestamp_ms)

    def slice(self, offset: int, count: int) -> list[Record]:
        """Return up to `count` records from `offset` on."""
        index = offset - self.start
        return self._records[index : index + count]

    def offset_for_time(self, timestamp_ms: int) -> int | None:
        """Return the first offset whose record's time is at least `timestamp_ms`, or None."""
        index = bisect_left(self._latest_ms, timestamp_ms)
        return self.start + index if index < len(self._records) else None

    def truncate(self) -> None:
        """Delete every record; offsets go on."""
        self.start = self.end
        self._records = []
        self._latest_ms = array("q")


class TopicLog:
    """One topic: its partitions and what is known of it."""

    def __init__(self, new: NewTopic) -> None:
        """Make `new.partitions` empty partitions."""
        self.info = TopicInfo(new.name, new.partitions, dict(new.config))
        self.partitions = [PartitionLog(new.name, index) for index in range(new.partitions)]
        self.create_time = new.config.get("message.timestamp.type") == "CreateTime"
        self.max_message_bytes = int(new.config.get("max.message.bytes", DEFAULT_MAX_MESSAGE_BYTES))
        self.grown = Waker()


class Topics:
    """All topics of one in-process broker."""

    def __init__(self) -> None:
        """Start without any."""
        self._topics: dict[str, TopicLog] = {}

    def create(self, new: NewTopic) -> None:
        """Create a topic unless it exists."""
        if new.partitions < 1:
            raise BusError(f"topic {new.name!r} cannot have {new.partitions} partitions; give it at least 1")
        self._topics.setdefault(new.name, TopicLog(new))

    def find(self, name: str) -> TopicLog | None:
        """Return the topic, or None."""
        return self._topics.get(name)

    def topic(self, name: str) -> TopicLog:
        """Return the topic; raise BusError when there is none."""
        try:
            return self._topics[name]
        except KeyError:
            raise BusError(unknown_topic(name)) from None

    def partition(self, partition: TopicPartition) -> PartitionLog:
        """Return the partition's log; raise BusError when there is none."""
        logs = self.topic(partition.topic).partitions
        if not 0 <= partition.partition < len(logs):
            raise BusError(unknown_partition(partition, len(logs)))
        return logs[partition.partition]


class Cursor:
    """Positions in some partitions, read in turn so that none starves."""

    def __init__(self, topics: Topics) -> None:
        """Start without partitions."""
        self._topics = topics
        self._logs: dict[TopicPartition, PartitionLog] = {}
        self._positions: dict[TopicPartition, int] = {}
        self._order: list[TopicPartition] = []
        self.paused: set[TopicPartition] = set()
        self.grown: tuple[Waker, ...] = ()

    def assign(self, positions: Mapping[TopicPartition, int | None]) -> None:
        """Read these partitions from now on; those without a position wait for `seek`."""
        self._logs = {partition: self._topics.partition(partition) for partition in positions}
        self._positions = {partition: offset for partition, offset in positions.items() if offset is not None}
        self._order = sorted(positions)
        self.paused = set()
        self.grown = tuple(self._topics.topic(name).grown for name in sorted({partition.topic for partition in positions}))

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Read on from `offset`; the partition must be among those assigned."""
        self._positions[partition] = offset

    def position(self, partition: TopicPartition) -> int | None:
        """Return the next offset to be read, None before there is one."""
        return self._positions.get(partition)

    def take(self, max_records: int) -> list[Record]:
        """Return the next records, at most `max_records`; raise OffsetOutOfRangeError when a position is not in its log."""
        positions, paused = self._positions, self.paused
        readable = [partition for partition in self._order if partition in positions and partition not in paused]
        missing = {
            partition: max(log.start - at, at - log.end)
            for partition in readable
            if not (log := self._logs[partition]).start <= (at := positions[partition]) <= log.end
        }
        if missing:
            raise OffsetOutOfRangeError(missing)
        taken: list[Record] = []
        for partition in readable:
            records = self._logs[partition].slice(positions[partition], max_records - len(taken))
            if records:
                positions[partition] += len(records)
                taken = taken + records if taken else records
                self._order.remove(partition)
                self._order.append(partition)
                if len(taken) >= max_records:
                    break
        return taken


async def poll(
    take: Callable[[int], list[Record]], wakers: Callable[[], Iterable[Waker]], *, timeout_ms: int, max_records: int
) -> list[Record]:
    """Return what `take` takes, at least one record unless `timeout_ms` passes first; try again when a waker wakes."""
    until = asyncio.get_running_loop().time() + timeout_ms / 1000
    await asyncio.sleep(0)  # a full log must not keep the loop from other tasks
    while not (records := take(max_records)) and timeout_ms > 0 and await Waker.wait(wakers(), until):
        continue
    return records
