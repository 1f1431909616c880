"""Joins and leaves the group: takes partitions over in the background, commits by watermark, and hands partitions back drained.

Unlike `services/core/folding/takeover.py`, which rebuilds within the rebalance, a worker rebuilds for minutes beside the running group.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, Protocol

import structlog

from services.core.bus import BusError, Committed, Consumer, OffsetOutOfRangeError, TopicPartition
from services.core.errors import ServiceError
from services.fusion.deliver.commit_metadata import decode_metadata, encode_metadata
from services.fusion.deliver.partitions import OwnedPartition, Partitions
from services.fusion.deliver.recovery import Recovery, Takeover

_REBUILDS_AT_ONCE: Final = 2
"""One is folded while the other waits for the broker. More would all end late: none could be decided on before nearly all are rebuilt."""
_RETRY_S: Final = 0.5

_log = structlog.get_logger()


class PartitionsChangedError(ServiceError):
    """The topics' partition count is not what it was."""


class PartitionWork(Protocol):
    """What happens to a partition's work when the partition comes or goes: `services.fusion.decide.partition_work`."""

    def assigned(self) -> None:
        """Note that the group has assigned this member its partitions, which may be none."""
        ...

    def restore(self, partition: int) -> None:
        """Restore guard state and open signals from the partition's history."""
        ...

    def taken_over(self) -> None:
        """Begin to work on a partition whose books have been rebuilt."""
        ...

    async def give_up(self, partitions: frozenset[int]) -> None:
        """Drain these partitions and forget what `restore` restored; their books stay."""
        ...

    def drop_books(self, partition: int) -> None:
        """Forget the books of a partition that is not owned, and what was made of them."""
        ...


class Ownership:
    """A RebalanceListener that takes partitions over and hands them back.

    A rebalance revokes every partition, also those that come back at once. Their books are kept until the next assignment, and stand for
    rebuilt ones when the partition comes back with the commit that they were folded up to.
    """

    def __init__(self, consumer: Consumer, recovery: Recovery, partitions: Partitions, work: PartitionWork, partition_count: int) -> None:
        """Read through `consumer`, and keep `partitions` up to date. The topics have `partition_count` partitions."""
        self._consumer = consumer
        self._recovery = recovery
        self._partitions = partitions
        self._work = work
        self._partition_count = partition_count
        self._waiting: asyncio.Queue[dict[int, OwnedPartition]] = asyncio.Queue()
        self._takeovers: dict[int, asyncio.Task[None]] = {}
        self._committed: dict[TopicPartition, Committed] = {}
        self._kept: dict[int, Mapping[TopicPartition, int]] = {}
        """By partition that is not taken over, the offsets that the books kept of it were folded up to."""
        self._free = asyncio.Semaphore(_REBUILDS_AT_ONCE)

    async def on_assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """Queue new partitions for takeover; they are not read until their books are rebuilt."""
        market, vision = self._partitions.inputs
        numbers = sorted({tp.partition for tp in partitions})
        for number in numbers:
            if any(tp not in partitions for tp in self._partitions.of(number)):
                raise BusError(
                    f"partition {number} of {market!r} and of {vision!r} went to different workers; both topics need "
                    "the same partition count, and every member of the group the range assignor"
                )
        for number in sorted(self._kept.keys() - set(numbers)):
            self._drop_books(number)
        new = {number: self._partitions.add(number) for number in numbers if self._partitions.owned(number) is None}
        for number in new:
            self._consumer.pause(self._partitions.of(number))
        if new:
            self._waiting.put_nowait(new)
        self._work.assigned()

    async def on_revoked(self, partitions: frozenset[TopicPartition]) -> None:
        """Drain, commit and forget."""
        numbers = frozenset(tp.partition for tp in partitions if self._partitions.owned(tp.partition) is not None)
        if not numbers:
            return
        cancelled = []
        for number in numbers:
            owned = self._partitions.owned(number)
            if owned is not None:
                owned.leaving = True
            takeover = self._takeovers.get(number)
            if takeover is not None and takeover.cancel():
                cancelled.append(takeover)
        if cancelled:
            # One that went on would fold into books that the partition's next takeover here is rebuilding.
            await asyncio.wait(cancelled)
        await self._work.give_up(numbers)
        await self.commit()
        for number in numbers:
            self._keep_books(number)
            self._partitions.remove(number)
            self._takeovers.pop(number, None)
            for tp in self._partitions.of(number):
                self._committed.pop(tp, None)

    async def run(self) -> None:
        """Take over what is queued, for ever; cancel to end."""
        async with asyncio.TaskGroup() as takeovers:
            while True:
                batch = await self._waiting.get()
                surveyed = await self._survey(batch)
                # The partition that has most to catch up with is the first that may be decided on.
                for number in sorted(surveyed, key=lambda number: -surveyed[number].pending):
                    owned = batch[number]
                    if self._owns(number, owned):
                        self._partitions.surveyed(owned, surveyed[number])
                        self._work.restore(number)
                        self._takeovers[number] = takeovers.create_task(
                            self._take_over(owned, surveyed[number]), name=f"take-over-{number}"
                        )

    async def commit(self) -> None:
        """Commit every watermark that has moved."""
        offsets = {}
        for watermark in self._partitions.watermarks:
            offset, ends = watermark.committable()
            commit = Committed(offset, encode_metadata(ends, self._partition_count))
            if self._committed.get(watermark.partition) != commit:
                offsets[watermark.partition] = commit
        if not offsets:
            return
        try:
            await self._consumer.commit(offsets)
        except BusError as error:
            # Somebody else may own them by now: what is not committed is read again, by whoever does.
            _log.warning("commit_failed", error=str(error))
            return
        self._committed.update(offsets)

    async def _survey(self, batch: Mapping[int, OwnedPartition]) -> dict[int, Takeover]:
        """Return where the work of each partition of `batch` that is still owned goes on; raise OffsetOutOfRangeError."""
        while numbers := [number for number, owned in batch.items() if self._owns(number, owned)]:
            try:
                # Those of partition 0 too, which there always was: a partition that is new has no commit to tell by.
                tps = {tp for number in (0, *numbers) for tp in self._partitions.of(number)}
                committed = await self._consumer.committed(sorted(tps))
                self._refuse_other_count(committed)
                return await self._recovery.survey(numbers, committed)
            except OffsetOutOfRangeError:
                raise
            except BusError as error:
                # A worker that ended here would meet the same broker when it is started again.
                _log.warning("take_over_failed", partitions=numbers, error=str(error))
                await asyncio.sleep(_RETRY_S)
        return {}

    async def _take_over(self, owned: OwnedPartition, takeover: Takeover) -> None:
        number = takeover.partition
        async with self._free:
            if self._kept.get(number) != takeover.start:
                self._drop_books(number)
                await self._rebuild(takeover)
        if not self._owns(number, owned):
            return
        self._kept.pop(number, None)
        self._partitions.taken_over(owned, takeover)
        for tp, offset in takeover.start.items():
            self._consumer.seek(tp, offset)
        await self.commit()
        self._consumer.resume(self._partitions.of(number))
        self._work.taken_over()
        _log.info("taken_over", partition=number, behind=takeover.pending)

    async def _rebuild(self, takeover: Takeover) -> None:
        """Rebuild a partition, through outages of the broker; raise OffsetOutOfRangeError."""
        while True:
            try:
                await self._recovery.rebuild(takeover)
            except OffsetOutOfRangeError:
                raise
            except BusError as error:
                _log.warning("take_over_failed", partitions=[takeover.partition], error=str(error))
                await asyncio.sleep(_RETRY_S)
            else:
                return

    def _owns(self, number: int, owned: OwnedPartition) -> bool:
        """Return whether `owned` is still what this worker owns the partition by, and is not being handed back."""
        return self._partitions.owned(number) is owned and not owned.leaving

    def _keep_books(self, number: int) -> None:
        """Keep the books of a partition that is handed back if all that was folded into them is finished and committed, else drop them.

        What is not finished is triggered again, by reading it again: books that hold it already would take it as duplicates.
        """
        tps = self._partitions.of(number)
        if number in self._kept:
            return  # not taken over since they were kept
        folded = {tp: watermark.next_offset for tp in tps if (watermark := self._partitions.watermarks.get(tp)) is not None}
        committed = {tp: held.offset for tp in tps if (held := self._committed.get(tp)) is not None}
        if len(folded) == len(tps) and folded == committed:
            self._kept[number] = folded
        else:
            self._drop_books(number)

    def _drop_books(self, number: int) -> None:
        self._kept.pop(number, None)
        self._work.drop_books(number)

    def _refuse_other_count(self, committed: Mapping[TopicPartition, Committed | None]) -> None:
        """Raise PartitionsChangedError when the group committed while the topics had another partition count."""
        for held in committed.values():
            metadata = decode_metadata(held.metadata) if held is not None else None
            if metadata is not None and metadata.partitions != self._partition_count:
                raise PartitionsChangedError(
                    f"topics {' and '.join(self._partitions.inputs)} had {metadata.partitions} partitions when this group last committed "
                    f"and have {self._partition_count} now: symbols have moved to other partitions, away from their history. Make new "
                    "topics with one count and copy the records over, then name a fusion.group and a fusion.log_id that are new as well"
                )
