"""A bus that turns records in Confluent's wire format into JSON as they are polled, so that everything above it reads JSON alone.

A record that cannot be decoded is passed on as it came, with a sentence that says why, and ends where other unusable records do.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Container, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Final

from schemas import live_name
from services.core.bus.port import Bus, Consumer, DecodedRecord, Reader, RebalanceListener, Record, TopicPartition
from services.core.bus.renamed import RenamedBus, RenamedConsumer, RenamedReader, TopicNames
from services.core.bus.schema_registry import SchemaRegistry
from services.core.bus.wire_format import WireFormatError, schema_id_of, to_json
from services.core.topic_settings import Decoder, TopicSettings


class RecordDecoders:
    """Decodes records by their topic, which is named as Aquiline names it."""

    def __init__(self, settings: TopicSettings) -> None:
        """Decode as `settings` say; raise BusError when the registry's certificate authority cannot be read."""
        self._decoders: Mapping[str, Decoder] = {str(topic): kind for topic, kind in settings.decoders.items() if kind != "json"}
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


class _Undecoded:
    """Records that were polled and are not decoded yet, since their schema is being fetched or could not be."""

    def __init__(self, decoders: RecordDecoders) -> None:
        self._decoders = decoders
        self._decoding = asyncio.Lock()
        """Several tasks may poll: each record is returned to one of them, and in order."""
        self._records: dict[TopicPartition, deque[Record]] = {}

    async def poll(
        self, poll: Callable[[int, int], Awaitable[list[Record]]], held: Callable[[], Container[TopicPartition]], limits: tuple[int, int]
    ) -> list[Record]:
        """Return at most so many decoded records of partitions that are `held`, at least one unless so many ms pass; raise BusError.

        What cannot be decoded now stays for the next poll.
        """
        timeout_ms, max_records = limits
        loop = asyncio.get_running_loop()
        until_s = loop.time() + timeout_ms / 1_000
        while True:
            left_ms = max(0, round(1_000 * (until_s - loop.time())))
            count = sum(map(len, self._records.values()))
            if count < max_records:
                for record in await poll(0 if count else left_ms, max_records - count):
                    self._records.setdefault(TopicPartition(record.topic, record.partition), deque()).append(record)
            decoded = await self._take(held, max_records)
            if decoded or not left_ms:
                return decoded

    async def _take(self, held: Callable[[], Container[TopicPartition]], max_records: int) -> list[Record]:
        async with self._decoding:
            batches: list[tuple[TopicPartition, deque[Record], list[Record]]] = []
            for partition, records in list(self._records.items()):
                batch = await self._decoders.decoded(list(islice(records, max_records)))
                max_records -= len(batch)
                batches.append((partition, records, batch))
            returned: list[Record] = []
            for partition, records, batch in batches:
                # Paused, revoked or sought meanwhile: the broker's log has them still.
                if self._records.get(partition) is not records or not batch:
                    continue
                for _ in batch:
                    records.popleft()
                if not records:
                    del self._records[partition]
                if partition in held():
                    returned += batch
            return returned

    def first(self, partition: TopicPartition) -> int | None:
        """Return the first offset that is not decoded, None without one."""
        records = self._records.get(partition)
        return records[0].offset if records else None

    def drop(self, partition: TopicPartition) -> int | None:
        """Forget the records of `partition`, which its reader will read again, and return the offset of the first, None without one."""
        first = self.first(partition)
        self._records.pop(partition, None)
        return first

    def clear(self) -> None:
        """Forget all."""
        self._records.clear()


class _Everything:
    def __contains__(self, partition: object) -> bool:
        return True


_EVERYTHING: Final = _Everything()


class DecodedReader(RenamedReader):
    """See `Reader` for what each method promises."""

    def __init__(self, inner: Reader, names: TopicNames, decoders: RecordDecoders) -> None:
        """Read through `inner`."""
        super().__init__(inner, names)
        self._undecoded = _Undecoded(decoders)

    async def read(self, start: Mapping[TopicPartition, int]) -> None:
        """Read from these offsets on."""
        self._undecoded.clear()
        await super().read(start)

    def position(self, partition: TopicPartition) -> int:
        """Return the next offset that `poll` will return."""
        first = self._undecoded.first(partition)
        return super().position(partition) if first is None else first

    async def poll(self, *, timeout_ms: int, max_records: int = 500) -> list[Record]:
        """Return the next records; raise BusError when a schema is needed and the registry does not answer."""
        return await self._undecoded.poll(partial(self._polled, self._inner), lambda: _EVERYTHING, (timeout_ms, max_records))


class DecodedConsumer(RenamedConsumer):
    """See `Consumer` for what each method promises.

    What is not decoded when its partition is paused or revoked goes back to the log: the position is set to the first of it.
    """

    def __init__(self, inner: Consumer, names: TopicNames, decoders: RecordDecoders) -> None:
        """Read through `inner`."""
        super().__init__(inner, names)
        self._undecoded = _Undecoded(decoders)

    async def start(self, topics: Sequence[str], listener: RebalanceListener) -> None:
        """Join the group."""
        await super().start(topics, _Listener(listener, self._give_back))

    async def poll(self, *, timeout_ms: int, max_records: int = 500) -> list[Record]:
        """Return the next records; raise BusError when a schema is needed and the registry does not answer."""
        return await self._undecoded.poll(partial(self._polled, self._inner), self.assignment, (timeout_ms, max_records))

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Read on from `offset`."""
        super().seek(partition, offset)
        self._undecoded.drop(partition)

    def position(self, partition: TopicPartition) -> int | None:
        """Return the next offset that `poll` will return."""
        at, first = super().position(partition), self._undecoded.first(partition)
        return at if at is None or first is None else first

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """Stop returning records of these partitions."""
        super().pause(partitions)
        self._give_back(partitions)

    def _give_back(self, partitions: Iterable[TopicPartition]) -> None:
        for partition in partitions:
            if (first := self._undecoded.drop(partition)) is not None:
                super().seek(partition, first)


class _Listener:
    """A listener before which records that are not decoded go back, so that none is returned and positions say so."""

    def __init__(self, listener: RebalanceListener, give_back: Callable[[Iterable[TopicPartition]], None]) -> None:
        self._listener = listener
        self._give_back = give_back

    async def on_assigned(self, partitions: frozenset[TopicPartition]) -> None:
        await self._listener.on_assigned(partitions)

    async def on_revoked(self, partitions: frozenset[TopicPartition]) -> None:
        self._give_back(partitions)
        await self._listener.on_revoked(partitions)


class DecodedBus(RenamedBus):
    """A bus over `inner` whose readers and consumers return JSON, its topics by the names that `names` gives them."""

    def __init__(self, inner: Bus, names: TopicNames, decoders: RecordDecoders) -> None:
        """Translate by `names`, and decode with `decoders`."""
        super().__init__(inner, names)
        self._decoders = decoders

    async def consumer(self, *, group: str, client_id: str, instance_id: str | None = None) -> DecodedConsumer:
        """Return a member of `group`, not yet started."""
        inner = await self._inner.consumer(group=group, client_id=client_id, instance_id=instance_id)
        return DecodedConsumer(inner, self._names, self._decoders)

    async def reader(self, *, client_id: str) -> DecodedReader:
        """Return a started reader."""
        return DecodedReader(await self._inner.reader(client_id=client_id), self._names, self._decoders)
