"""A bus whose topics have other names on the broker: everything above it uses Aquiline's names, and never sees the others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from services.core.bus.port import (
    Admin,
    Bus,
    Committed,
    Consumer,
    Headers,
    NewTopic,
    OffsetOutOfRangeError,
    Position,
    Producer,
    Reader,
    RebalanceListener,
    Record,
    TopicInfo,
    TopicPartition,
)

V = TypeVar("V")


class TopicNames(Protocol):
    """Pairs of names; a topic without another name has the same on both sides."""

    def on_broker(self, name: str) -> str:
        """Return the broker's name of the topic that Aquiline calls `name`."""
        ...

    def of_broker(self, name: str) -> str:
        """Return Aquiline's name of the topic that the broker calls `name`."""
        ...


class _Renamed:
    """Translates what passes."""

    def __init__(self, names: TopicNames) -> None:
        self._names = names

    def _out(self, partition: TopicPartition) -> TopicPartition:
        return TopicPartition(self._names.on_broker(partition.topic), partition.partition)

    def _in(self, partition: TopicPartition) -> TopicPartition:
        return TopicPartition(self._names.of_broker(partition.topic), partition.partition)

    def _all_out(self, partitions: Sequence[TopicPartition]) -> list[TopicPartition]:
        return [self._out(tp) for tp in partitions]

    def _keys_out(self, by_partition: Mapping[TopicPartition, V]) -> dict[TopicPartition, V]:
        return {self._out(tp): value for tp, value in by_partition.items()}

    def _keys_in(self, by_partition: Mapping[TopicPartition, V]) -> dict[TopicPartition, V]:
        return {self._in(tp): value for tp, value in by_partition.items()}

    async def _polled(self, inner: Reader | Consumer, timeout_ms: int, max_records: int) -> list[Record]:
        of_broker = self._names.of_broker
        try:
            records = await inner.poll(timeout_ms=timeout_ms, max_records=max_records)
        except OffsetOutOfRangeError as error:
            raise OffsetOutOfRangeError(self._keys_in(error.missing)) from error
        return [record._replace(topic=of_broker(record.topic)) for record in records]


class RenamedProducer(_Renamed):
    """See `Producer` for what each method promises."""

    def __init__(self, inner: Producer, names: TopicNames) -> None:
        """Append through `inner`."""
        super().__init__(names)
        self._inner = inner

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
        """Hand a record over and return an awaitable of its acknowledgement."""
        name = self._names.on_broker(topic)
        sent = await self._inner.send(name, key=key, value=value, headers=headers, timestamp_ms=timestamp_ms, partition=partition)
        return _Acknowledgement(sent, topic)

    async def flush(self) -> None:
        """Return once every record handed over is acknowledged or has failed."""
        await self._inner.flush()

    async def close(self) -> None:
        """Flush and close."""
        await self._inner.close()


class _Acknowledgement(Awaitable[Position]):
    """The acknowledgement behind it, with the topic by the name that it was sent to."""

    def __init__(self, sent: Awaitable[Position], topic: str) -> None:
        self._sent = sent
        self._topic = topic

    def __await__(self) -> Generator[Any, Any, Position]:
        position = yield from self._sent.__await__()
        return position._replace(topic=self._topic)


class RenamedReader(_Renamed):
    """See `Reader` for what each method promises."""

    def __init__(self, inner: Reader, names: TopicNames) -> None:
        """Read through `inner`."""
        super().__init__(names)
        self._inner = inner

    async def beginning_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Return each partition's first offset that is still held."""
        return self._keys_in(await self._inner.beginning_offsets(self._all_out(partitions)))

    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the offset at which each partition ends for readers."""
        return self._keys_in(await self._inner.end_offsets(self._all_out(partitions)))

    async def offsets_for_times(self, times: Mapping[TopicPartition, int]) -> dict[TopicPartition, int | None]:
        """Return each partition's first offset whose record is at least that old in milliseconds, None past the end."""
        return self._keys_in(await self._inner.offsets_for_times(self._keys_out(times)))

    async def read(self, start: Mapping[TopicPartition, int]) -> None:
        """Read from these offsets on."""
        await self._inner.read(self._keys_out(start))

    def position(self, partition: TopicPartition) -> int:
        """Return the next offset that `poll` will return."""
        return self._inner.position(self._out(partition))

    async def poll(self, *, timeout_ms: int, max_records: int = 500) -> list[Record]:
        """Return the next records."""
        return await self._polled(self._inner, timeout_ms, max_records)

    async def close(self) -> None:
        """Close."""
        await self._inner.close()


class RenamedConsumer(_Renamed):
    """See `Consumer` for what each method promises."""

    def __init__(self, inner: Consumer, names: TopicNames) -> None:
        """Read through `inner`."""
        super().__init__(names)
        self._inner = inner

    async def start(self, topics: Sequence[str], listener: RebalanceListener) -> None:
        """Join the group."""
        await self._inner.start([self._names.on_broker(topic) for topic in topics], _Listener(listener, self._names))

    async def poll(self, *, timeout_ms: int, max_records: int = 500) -> list[Record]:
        """Return the next records."""
        return await self._polled(self._inner, timeout_ms, max_records)

    def assignment(self) -> frozenset[TopicPartition]:
        """Return the partitions this member holds."""
        return frozenset(map(self._in, self._inner.assignment()))

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Read on from `offset`."""
        self._inner.seek(self._out(partition), offset)

    def position(self, partition: TopicPartition) -> int | None:
        """Return the next offset that `poll` will return."""
        return self._inner.position(self._out(partition))

    async def committed(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Committed | None]:
        """Return what the group last committed for each partition."""
        return self._keys_in(await self._inner.committed(self._all_out(partitions)))

    async def commit(self, offsets: Mapping[TopicPartition, Committed]) -> None:
        """Commit."""
        await self._inner.commit(self._keys_out(offsets))

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """Stop returning records of these partitions."""
        self._inner.pause(self._all_out(partitions))

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """Undo `pause`."""
        self._inner.resume(self._all_out(partitions))

    async def close(self) -> None:
        """Leave the group."""
        await self._inner.close()


class _Listener(_Renamed):
    """A listener that is called with Aquiline's names."""

    def __init__(self, listener: RebalanceListener, names: TopicNames) -> None:
        super().__init__(names)
        self._listener = listener

    async def on_assigned(self, partitions: frozenset[TopicPartition]) -> None:
        await self._listener.on_assigned(frozenset(map(self._in, partitions)))

    async def on_revoked(self, partitions: frozenset[TopicPartition]) -> None:
        await self._listener.on_revoked(frozenset(map(self._in, partitions)))


class RenamedAdmin(_Renamed):
    """See `Admin` for what each method promises."""

    def __init__(self, inner: Admin, names: TopicNames) -> None:
        """Ask through `inner`."""
        super().__init__(names)
        self._inner = inner

    async def describe(self, topics: Sequence[str]) -> dict[str, TopicInfo]:
        """Return what is known of each topic that exists."""
        found = await self._inner.describe([self._names.on_broker(topic) for topic in topics])
        return {(ours := self._names.of_broker(name)): replace(info, name=ours, on_broker=name) for name, info in found.items()}

    async def create(self, topics: Sequence[NewTopic]) -> None:
        """Create those topics that do not exist yet."""
        await self._inner.create([replace(new, name=self._names.on_broker(new.name)) for new in topics])

    async def truncate(self, topics: Sequence[str]) -> None:
        """Delete every record of these topics."""
        await self._inner.truncate([self._names.on_broker(topic) for topic in topics])

    async def close(self) -> None:
        """Close."""
        await self._inner.close()


class RenamedBus:
    """A bus over `inner`, whose topics have other names."""

    def __init__(self, inner: Bus, names: TopicNames) -> None:
        """Translate by `names`."""
        self._inner = inner
        self._names = names

    @property
    def address(self) -> str:
        """Return the bus's address without credentials."""
        return self._inner.address

    async def producer(
        self, *, client_id: str, delivery_timeout_ms: int = 30_000, before_write: Callable[[], None] = lambda: None
    ) -> RenamedProducer:
        """Return a started producer."""
        inner = await self._inner.producer(client_id=client_id, delivery_timeout_ms=delivery_timeout_ms, before_write=before_write)
        return RenamedProducer(inner, self._names)

    async def consumer(self, *, group: str, client_id: str, instance_id: str | None = None) -> RenamedConsumer:
        """Return a member of `group`, not yet started."""
        return RenamedConsumer(await self._inner.consumer(group=group, client_id=client_id, instance_id=instance_id), self._names)

    async def reader(self, *, client_id: str) -> RenamedReader:
        """Return a started reader."""
        return RenamedReader(await self._inner.reader(client_id=client_id), self._names)

    async def admin(self) -> RenamedAdmin:
        """Return a started admin."""
        return RenamedAdmin(await self._inner.admin(), self._names)

    async def close(self) -> None:
        """Close what the bus itself holds."""
        await self._inner.close()
