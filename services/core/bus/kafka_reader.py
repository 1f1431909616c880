"""The Kafka reader: chosen partitions outside any group; and what reader and consumer share."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, islice
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.fetcher import READ_COMMITTED, FetchError, FetchResult, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.errors import OffsetOutOfRangeError as KafkaOutOfRangeError
from aiokafka.structs import TopicPartition as KafkaPartition

from services.core.bus.error_text import not_read
from services.core.bus.kafka_client import TopicLookup
from services.core.bus.kafka_errors import as_bus_error
from services.core.bus.port import BusError, OffsetOutOfRangeError, Record, TopicPartition


class FetchedRecords(OrderedDict[KafkaPartition, Any]):
    """What an aiokafka fetcher has fetched and not returned yet, by partition; install it before the first fetch.

    Its records come out as the bus's own, a list for each batch. aiokafka makes each a dataclass of eleven fields, with four calls on the
    way: reading from a local broker takes 1.5 us a record so, and 1.05 as it is here.
    """

    @classmethod
    def install(cls, inner: AIOKafkaConsumer) -> None:
        """Have the started `inner` keep what it fetches in one of these."""
        inner._fetcher._records = cls()  # noqa: SLF001 - aiokafka has no hook between a fetched batch and its records

    def __setitem__(self, partition: KafkaPartition, fetched: Any) -> None:
        """Keep a fetched batch, or the error in its place."""
        if isinstance(fetched, FetchResult):
            _BusRecords.take_over(fetched._partition_records)  # noqa: SLF001
            fetched.getall = partial(self._take, fetched)
        super().__setitem__(partition, fetched)

    def _take(self, fetched: FetchResult, max_records: int) -> list[Record]:
        """Do as `FetchResult.getall`, but return the records before a batch that cannot be read, and leave its error to the next call.

        aiokafka raises the error at once. The records that this call has taken of other partitions go with it, though their positions have
        moved: a reader that goes on after an error would never see them.
        """
        if not fetched.check_assignment(fetched._topic_partition) or not fetched.has_more():  # noqa: SLF001
            return []
        rest: _BusRecords = fetched._partition_records  # noqa: SLF001
        records: list[Record] = []
        try:
            records.extend(islice(rest._records_iterator, max_records))  # noqa: SLF001
        except Exception as error:  # noqa: BLE001 - raised by the next call
            fetched._update_position()  # noqa: SLF001
            # The fetcher takes a place without more records out: `fetched` keeps its own, so that the error stays.
            self[fetched._topic_partition] = FetchError(error=error, backoff=fetched._backoff)  # noqa: SLF001
            return records
        if len(records) == max_records:
            rest.next_fetch_offset = records[-1].offset + 1
            fetched._update_position()  # noqa: SLF001
        else:
            fetched._update_position()  # noqa: SLF001
            fetched._partition_records = None  # noqa: SLF001
        return records


class _BusRecords(PartitionRecords):  # type: ignore[misc] # aiokafka has no types
    """Fetched records of one partition: `_unpack_records` does as the one that it overrides, but for what it makes of a record.

    `next_fetch_offset` moves at the end of each batch; a caller that stops within one moves it.
    """

    next_fetch_offset: int

    @classmethod
    def take_over(cls, fetched: PartitionRecords) -> None:
        """Have `fetched`, of which nothing is read yet, yield the bus's records."""
        fetched.__class__ = cls
        fetched._records_iterator = chain.from_iterable(fetched._unpack_records())  # noqa: SLF001

    def _unpack_records(self) -> Iterator[list[Record]]:
        topic, partition = self._tp
        new = tuple.__new__
        while self._records.has_next():
            batch = self._records.next_batch()
            if self._check_crcs and not batch.validate_crc():
                raise CorruptRecordException(f"the batch of {topic}[{partition}] at offset {self.next_fetch_offset} fails its checksum")
            if not self._is_aborted(batch) and not batch.is_control_batch:
                records = [
                    new(
                        Record,
                        (topic, partition, of.offset, of.timestamp, of.key, of.value, tuple(headers) if (headers := of.headers) else ()),
                    )
                    for of in batch
                ]
                first = self.next_fetch_offset
                # A fetch begins with the batch that holds its offset. Batches of formats 0 and 1 tell no offset but their records'.
                if records and records[0].offset < first:
                    records = [record for record in records if record.offset >= first]
                yield records
            self.next_fetch_offset = batch.next_offset  # the last offsets of a compacted batch carry no record

    def _is_aborted(self, batch: Any) -> bool:
        """Return whether a batch belongs to an aborted transaction, to be asked of each batch in order."""
        if self._isolation_level != READ_COMMITTED or batch.producer_id is None:
            return False
        self._consume_aborted_up_to(batch.base_offset)
        if batch.is_control_batch and self._contains_abort_marker(batch):
            self._aborted_producers.discard(batch.producer_id)
        return batch.is_transactional and batch.producer_id in self._aborted_producers


async def fetch(inner: AIOKafkaConsumer, *, timeout_ms: int, max_records: int) -> list[Record]:
    """Return the next records of `inner`, none when `timeout_ms` passes; raise the bus's OffsetOutOfRangeError."""
    subscription = inner._subscription  # noqa: SLF001 - see below
    running = subscription._fetch_count  # noqa: SLF001
    try:
        # aiokafka's own timeout does not hold while a rebalance runs, so a second one stands around it.
        async with asyncio.timeout(timeout_ms / 1000 + 0.05):
            batches = await inner.getmany(timeout_ms=timeout_ms, max_records=max_records)
            if not batches:
                batches = await inner.getmany(timeout_ms=0, max_records=max_records)  # raises an error that the first one has kept
    except TimeoutError:
        return []
    except KafkaOutOfRangeError as error:
        raise await _out_of_range(inner, error.args[0]) from error
    finally:
        # Cancelled, aiokafka forgets to count the call out, and would never again see an idle member as idle.
        subscription._fetch_count = running  # noqa: SLF001
    return list(chain.from_iterable(batches.values()))


def position_of(inner: AIOKafkaConsumer, partition: TopicPartition) -> int:
    """Return the next offset that `inner` reads of a partition that it is assigned."""
    state = inner._subscription._assigned_state(KafkaPartition(*partition))  # noqa: SLF001 - position() is a coroutine
    offset: int = state.position
    return offset


async def _out_of_range(inner: AIOKafkaConsumer, at: Mapping[KafkaPartition, int]) -> OffsetOutOfRangeError:
    first = await inner.beginning_offsets(list(at))
    last = await inner.end_offsets(list(at))
    return OffsetOutOfRangeError(
        {TopicPartition(*partition): max(first[partition] - offset, offset - last[partition]) for partition, offset in at.items()}
    )


class KafkaReader:
    """See `Reader` for what each method promises."""

    def __init__(self, inner: AIOKafkaConsumer, client_id: str) -> None:
        """Make a reader over `inner`, which has no group and is not started."""
        self._inner = inner
        self._client_id = client_id
        self._lookup = TopicLookup(inner._client)  # noqa: SLF001 - one connection less
        self._reads: frozenset[TopicPartition] = frozenset()

    async def start(self) -> None:
        """Connect; raise BusError when the broker cannot be reached."""
        try:
            with as_bus_error(f"starting reader {self._client_id!r}"):
                await self._inner.start()
            FetchedRecords.install(self._inner)
        except BaseException:
            await self._inner.stop()
            raise

    async def beginning_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Return each partition's first offset."""
        return self._ours(await self._ask("beginning_offsets", partitions, [KafkaPartition(*one) for one in partitions]))

    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Return each partition's next offset."""
        return self._ours(await self._ask("end_offsets", partitions, [KafkaPartition(*one) for one in partitions]))

    async def offsets_for_times(self, times: Mapping[TopicPartition, int]) -> dict[TopicPartition, int | None]:
        """Return each partition's first offset of at least that time."""
        asked = {KafkaPartition(*partition): at_ms for partition, at_ms in times.items()}
        found = await self._ask("offsets_for_times", list(times), asked)
        return {TopicPartition(*partition): None if at is None else at.offset for partition, at in found.items()}

    async def read(self, start: Mapping[TopicPartition, int]) -> None:
        """Read from these offsets on."""
        for partition in start:
            await self._lookup.check(partition)
        self._reads = frozenset(start)
        if not start:
            self._inner.unsubscribe()
            return
        with as_bus_error("starting to read"):
            self._inner.assign([KafkaPartition(*partition) for partition in start])
            for partition, offset in start.items():
                self._inner.seek(KafkaPartition(*partition), offset)

    def position(self, partition: TopicPartition) -> int:
        """Return the next offset to be read."""
        if partition not in self._reads:
            raise BusError(not_read(self._client_id, partition))
        return position_of(self._inner, partition)

    async def poll(self, *, timeout_ms: int, max_records: int = 500) -> list[Record]:
        """Return the next records."""
        with as_bus_error("reading"):
            if not self._reads:
                await asyncio.sleep(timeout_ms / 1000)
                return []
            return await fetch(self._inner, timeout_ms=timeout_ms, max_records=max_records)

    async def close(self) -> None:
        """Close."""
        # aiokafka's own task, cancelled before it has run once, would raise CancelledError here: let it begin.
        await asyncio.sleep(0)
        await self._inner.stop()

    async def _ask(self, what: str, partitions: Sequence[TopicPartition], argument: Any) -> dict[KafkaPartition, Any]:
        for partition in partitions:
            await self._lookup.check(partition)
        with as_bus_error(what.replace("_", " ")):
            await self._learn_leaders({partition.topic for partition in partitions})
            answer: dict[KafkaPartition, Any] = await getattr(self._inner, what)(argument)
        return answer

    async def _learn_leaders(self, topics: set[str]) -> None:
        """Have the client look topics up that it does not know: aiokafka asks without, fails, and asks again 100 to 200 ms later."""
        client = self._inner._client  # noqa: SLF001 - there is no public way
        known: set[str] = client._topics  # noqa: SLF001
        if topics - known:
            async with asyncio.timeout(client._request_timeout_ms / 1000):  # noqa: SLF001
                await client.set_topics(known | topics)

    @staticmethod
    def _ours(offsets: Mapping[KafkaPartition, int]) -> dict[TopicPartition, int]:
        return {TopicPartition(*partition): offset for partition, offset in offsets.items()}
