"""A bus that turns records in Confluent's wire format into JSON as they are polled, so that everything above it reads JSON alone.

A record that cannot be decoded is passed on as it came, with a sentence that says why, and ends where other unusable records do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from schemas import live_name
from services.core.bus.port import (
    Admin,
    Bus,
    Committed,
    Consumer,
    DecodedRecord,
    Producer,
    Reader,
    RebalanceListener,
    Record,
    TopicPartition,
)
from services.core.bus.schema_registry import SchemaRegistry
from services.core.bus.wire_format import WireFormatError, schema_id_of, to_json
from services.core.topic_settings import Decoder, TopicSettings


class RecordDecoders:
    """Decodes records by their topic, which is named as Aquiline names it."""

    def __init__(self, settings: TopicSettings) -> None:
        """Decode as `settings` say; raise BusError when the registry's certificate authority cannot be read."""
        self._decoders: Mapping[str, Decoder] = {topic.value: kind for topic, kind in settings.decoders.items() if kind != "json"}
        self._registry = SchemaRegistry(settings)

    async def decoded(self, records: Sequence[Record]) -> list[Record]:
        """Return `records` with their values as JSON; raise BusError when a schema is needed and the registry does not answer."""
        return [await self._one(record, kind) if (kind := self._kind_of(record.topic)) else record for record in records]

    def _kind_of(self, topic: str) -> Decoder | None:
        return self._decoders.get(live_name(topic))

    async def _one(self, record: Record, kind: Decoder) -> Record:
        if not record.value:
            return record
        try:
            schema = await self._registry.schema(schema_id_of(record.value))
            return DecodedRecord.of(record, to_json(record.value, schema, kind))
        except WireFormatError as error:
            return DecodedRecord.of(record, b"", str(error))


class _Polls:
    """Polls and decodes. What is not decoded yet, since its schema is being fetched or could not be, waits for this poll or the next."""

    def __init__(self, inner: Reader | Consumer, decoders: RecordDecoders) -> None:
        self._polled = inner
        self._decoders = decoders
        self._decoding = asyncio.Lock()
        """Several tasks may poll: each record is returned to one of them, and in order."""
        self._waiting: dict[tuple[str, int, int], Record] = {}

    async def poll(self, *, timeout_ms: int, max_records: int = 500) -> list[Record]:
        """Return the next records; raise BusError when a schema is needed and the registry does not answer."""
        if not self._waiting:
            records = await self._polled.poll(timeout_ms=timeout_ms, max_records=max_records)
            self._waiting |= {_place(record): record for record in records}
        async with self._decoding:
            decoded = await self._decoders.decoded(list(self._waiting.values()))
            # A seek may have dropped some meanwhile.
            return [record for record in decoded if self._waiting.pop(_place(record), None) is not None]

    def _first_waiting(self, partition: TopicPartition) -> int | None:
        return next((offset for topic, number, offset in self._waiting if (topic, number) == partition), None)


def _place(record: Record) -> tuple[str, int, int]:
    return record.topic, record.partition, record.offset


class DecodedReader(_Polls):
    """See `Reader` for what each method promises."""

    def __init__(self, inner: Reader, decoders: RecordDecoders) -> None:
        """Read through `inner`."""
        super().__init__(inner, decoders)
        self._inner = inner

    async def beginning_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Return each partition's first offset that is still held."""
        return await self._inner.beginning_offsets(partitions)

    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the offset at which each partition ends for readers."""
        return await self._inner.end_offsets(partitions)

    async def offsets_for_times(self, times: Mapping[TopicPartition, int]) -> dict[TopicPartition, int | None]:
        """Return each partition's first offset whose record is at least that old in milliseconds, None past the end."""
        return await self._inner.offsets_for_times(times)

    async def read(self, start: Mapping[TopicPartition, int]) -> None:
        """Read from these offsets on."""
        self._waiting = {}
        await self._inner.read(start)

    def position(self, partition: TopicPartition) -> int:
        """Return the next offset that `poll` will return."""
        waiting = self._first_waiting(partition)
        return self._inner.position(partition) if waiting is None else waiting

    async def close(self) -> None:
        """Close."""
        await self._inner.close()


class DecodedConsumer(_Polls):
    """See `Consumer` for what each method promises."""

    def __init__(self, inner: Consumer, decoders: RecordDecoders) -> None:
        """Read through `inner`."""
        super().__init__(inner, decoders)
        self._inner = inner

    async def start(self, topics: Sequence[str], listener: RebalanceListener) -> None:
        """Join the group."""
        await self._inner.start(topics, listener)

    def assignment(self) -> frozenset[TopicPartition]:
        """Return the partitions this member holds."""
        return self._inner.assignment()

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Read on from `offset`."""
        self._waiting = {place: one for place, one in self._waiting.items() if place[:2] != partition}
        self._inner.seek(partition, offset)

    def position(self, partition: TopicPartition) -> int | None:
        """Return the next offset that `poll` will return."""
        at = self._inner.position(partition)
        return at if at is None or (waiting := self._first_waiting(partition)) is None else waiting

    async def committed(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Committed | None]:
        """Return what the group last committed for each partition."""
        return await self._inner.committed(partitions)

    async def commit(self, offsets: Mapping[TopicPartition, Committed]) -> None:
        """Commit."""
        await self._inner.commit(offsets)

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """Stop returning records of these partitions."""
        self._inner.pause(partitions)

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """Undo `pause`."""
        self._inner.resume(partitions)

    async def close(self) -> None:
        """Leave the group."""
        await self._inner.close()


class DecodedBus:
    """A bus over `inner` whose readers and consumers return JSON."""

    def __init__(self, inner: Bus, decoders: RecordDecoders) -> None:
        """Decode with `decoders`."""
        self._inner = inner
        self._decoders = decoders

    @property
    def address(self) -> str:
        """Return the bus's address without credentials."""
        return self._inner.address

    async def producer(
        self, *, client_id: str, delivery_timeout_ms: int = 30_000, before_write: Callable[[], None] = lambda: None
    ) -> Producer:
        """Return a started producer, which writes what it is given."""
        return await self._inner.producer(client_id=client_id, delivery_timeout_ms=delivery_timeout_ms, before_write=before_write)

    async def consumer(self, *, group: str, client_id: str, instance_id: str | None = None) -> DecodedConsumer:
        """Return a member of `group`, not yet started."""
        return DecodedConsumer(await self._inner.consumer(group=group, client_id=client_id, instance_id=instance_id), self._decoders)

    async def reader(self, *, client_id: str) -> DecodedReader:
        """Return a started reader."""
        return DecodedReader(await self._inner.reader(client_id=client_id), self._decoders)

    async def admin(self) -> Admin:
        """Return a started admin."""
        return await self._inner.admin()

    async def close(self) -> None:
        """Close what the bus itself holds."""
        await self._inner.close()
