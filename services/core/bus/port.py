"""The bus: the little of Kafka that Aquiline uses, as protocols with two implementations behind one contract suite.

`kafka://` is aiokafka; `memory://` is in-process, for the demo, replay and unit tests. Offsets, partitions, consumer groups,
committed offsets with metadata and rebalances mean the same in both. On Kafka, readers and consumers read committed records only:
what an aborted transaction wrote is never returned.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

Headers = Sequence[tuple[str, bytes]]


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int


class Record(NamedTuple):
    """One record of a topic. `timestamp_ms` is the broker's append time where the topic says so, else the producer's.

    A tuple, as one is made for every record read and a frozen dataclass takes three times as long.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class DecodedRecord(Record):
    """A record whose value a decoder has read: `value` is JSON, or empty where it could not be decoded."""

    original: bytes | None = None
    """The value as it is on the topic."""
    problem: str | None = None
    """Why it could not be decoded."""

    @classmethod
    def of(cls, record: Record, value: bytes, problem: str | None = None) -> DecodedRecord:
        """Return `record` with a decoded `value`."""
        made = cls(*record._replace(value=value))
        made.original, made.problem = record.value, problem
        return made


class Position(NamedTuple):
    """Where a record was appended."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int


class Committed(NamedTuple):
    """A group's committed offset (the next one to read) and the text committed with it."""

    offset: int
    metadata: str


class BusError(Exception):
    """The bus cannot do what was asked; the text says what to do."""


class OffsetOutOfRangeError(BusError):
    """A position lies outside what the log still holds. `missing` maps each partition to the count of records lost."""

    def __init__(self, missing: Mapping[TopicPartition, int]) -> None:
        """Name each partition and how many of its records are gone."""
        self.missing = dict(missing)
        lost = ", ".join(f"{tp.topic}[{tp.partition}]: {count} records" for tp, count in sorted(self.missing.items()))
        super().__init__(
            f"offsets are out of range and are never reset silently; gone from the log: {lost}. "
            "Lengthen the topic's retention, then move the group's offsets by hand to where it should go on"
        )


class RebalanceListener(Protocol):
    """Told what a group member gains and loses.

    No record is returned before `on_assigned` is done, and nobody else gets a partition before `on_revoked` is. What either
    raises, the member's next `poll` raises.
    """

    async def on_assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """Take over `partitions`: all that are now assigned, not only the new ones.

        It may take long; a rebalance that comes before it is done cancels it, and `on_revoked` follows.
        """
        ...

    async def on_revoked(self, partitions: frozenset[TopicPartition]) -> None:
        """Finish or abort work on `partitions`, and commit, before this returns: another member reads them next."""
        ...


class Producer(Protocol):
    """Appends records; safe to use from many tasks."""

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
        """Hand a record over and return an awaitable of its acknowledgement.

        It goes to `partition`, or where a hash of its key says: Kafka's own (murmur2), which other clients may not use.
        Records of one key keep their order. The acknowledgement raises BusError when the broker did not take the record
        within the producer's delivery timeout; it may have been appended all the same.
        """
        ...

    async def flush(self) -> None:
        """Return once every record handed over is acknowledged or has failed."""
        ...

    async def close(self) -> None:
        """Flush and close."""
        ...


class Reader(Protocol):
    """Reads chosen partitions outside any group."""

    async def beginning_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Return each partition's first offset that is still held."""
        ...

    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the offset at which each partition ends for readers: the next to be appended, or an open transaction's first."""
        ...

    async def offsets_for_times(self, times: Mapping[TopicPartition, int]) -> dict[TopicPartition, int | None]:
        """Return each partition's first offset whose record is at least that old in milliseconds, None past the end."""
        ...

    async def read(self, start: Mapping[TopicPartition, int]) -> None:
        """Read from these offsets on, in place of what was read before; out of range raises OffsetOutOfRangeError in `poll`."""
        ...

    def position(self, partition: TopicPartition) -> int:
        """Return the next offset that `poll` will return; it passes offsets without a record, as `Consumer.position` does."""
        ...

    async def poll(self, *, timeout_ms: int, max_records: int = 500) -> list[Record]:
        """Return the next records, at least one unless `timeout_ms` passes first. Each partition's come in order."""
        ...

    async def close(self) -> None:
        """Close."""
        ...


class Consumer(Protocol):
    """A member of a consumer group."""

    async def start(self, topics: Sequence[str], listener: RebalanceListener) -> None:
        """Join the group, partitions assigned by range so that partition p of every topic goes to one member.

        `listener` is called with the assignment from within `poll` or in the background, before its first record is returned.
        """
        ...

    async def poll(self, *, timeout_ms: int, max_records: int = 500) -> list[Record]:
        """Return the next records, at least one unless `timeout_ms` passes first. Each partition's come in order.

        Reading starts at `seek`'s offset where the listener called it, else at the committed one. A partition with neither
        is not read until `seek` is called. Raises OffsetOutOfRangeError, and never resets.
        """
        ...

    def assignment(self) -> frozenset[TopicPartition]:
        """Return the partitions this member holds."""
        ...

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Read on from `offset`."""
        ...

    def position(self, partition: TopicPartition) -> int | None:
        """Return the next offset that `poll` will return; None before there is one, or when this member does not hold `partition`.

        On Kafka it passes offsets that carry no record for readers: compacted ones, transaction markers, aborted transactions.
        """
        ...

    async def committed(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Committed | None]:
        """Return what the group last committed for each partition."""
        ...

    async def commit(self, offsets: Mapping[TopicPartition, Committed]) -> None:
        """Commit; raise BusError when this member no longer holds a partition."""
        ...

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """Stop returning records of these partitions, without leaving the group."""
        ...

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """Undo `pause`."""
        ...

    async def close(self) -> None:
        """Leave the group. The listener's `on_revoked` has returned by then."""
        ...


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """What a broker says of a topic: its partition count, and its configuration by Kafka's names."""

    name: str
    partitions: int
    config: Mapping[str, str]
    on_broker: str = ""
    """The broker's name of it, where that is another one."""

    @property
    def broker_name(self) -> str:
        """Return the name to give the broker's own tools."""
        return self.on_broker or self.name


@dataclass(frozen=True, slots=True)
class NewTopic:
    """A topic to create, with its configuration by Kafka's names."""

    name: str
    partitions: int
    config: Mapping[str, str]
    replication: int = 1


class Admin(Protocol):
    """Looks at and creates topics."""

    async def describe(self, topics: Sequence[str]) -> dict[str, TopicInfo]:
        """Return what is known of each topic that exists; those that don't are left out."""
        ...

    async def create(self, topics: Sequence[NewTopic]) -> None:
        """Create those topics that do not exist yet, and return once each can be written and read."""
        ...

    async def truncate(self, topics: Sequence[str]) -> None:
        """Delete every record of these topics; offsets go on from where they were."""
        ...

    async def close(self) -> None:
        """Close."""
        ...


class Bus(Protocol):
    """Makes producers, consumers, readers and an admin for one broker."""

    @property
    def address(self) -> str:
        """Return the bus's address without credentials, for people: `kafka://127.0.0.1:9092` or `memory://`."""
        ...

    async def producer(
        self, *, client_id: str, delivery_timeout_ms: int = 30_000, before_write: Callable[[], None] = lambda: None
    ) -> Producer:
        """Return a started, idempotent producer (acks=all) whose acknowledgements fail after `delivery_timeout_ms`.

        `before_write` is called when a record is handed over and in the instant before records are written: while it raises BusError,
        none leaves.
        """
        ...

    async def consumer(self, *, group: str, client_id: str, instance_id: str | None = None) -> Consumer:
        """Return a member of `group`, not yet started; with `instance_id` its membership is static."""
        ...

    async def reader(self, *, client_id: str) -> Reader:
        """Return a started reader."""
        ...

    async def admin(self) -> Admin:
        """Return a started admin."""
        ...

    async def close(self) -> None:
        """Close what the bus itself holds; what it made is closed by its caller."""
        ...
