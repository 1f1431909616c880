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

_TAKEOVERS_AT_ONCE: Final = 4
"""A takeover mostly waits for the broker (0.7 s of it on an idle one): twelve partitions one by one would take 9 s."""
_RETRY_S: Final = 0.5

_log = structlog.get_logger()


class PartitionsChangedError(ServiceError):
    """The topics' partition count is not what it was."""


class PartitionWork(Protocol):
    """What happens to a partition's work when the partition comes or goes: `services.fusion.decide.partition_work`."""

    def assigned(self) -> None:
        """Note that the group has assigned this member its partitions, which may be none."""
        ...

    def taken_over(self, partition: int) -> None:
        """Restore the work of a partition whose books are rebuilt."""
        ...

    async def give_up(self, partitions: frozenset[int]) -> None:
        """Drain these partitions and forget their work."""
        ...


class Ownership:
    """A RebalanceListener that takes partitions over and hands them back."""

    def __init__(self, consumer: Consumer, recovery: Recovery, partitions: Partitions, work: PartitionWork, partition_count: int) -> None:
        """Read through `consumer`, and keep `partitions` up to date. The topics have `partition_count` partitions."""
        self._consumer = consumer
        self._recovery = recovery
        self._partitions = partitions
        self._work = work
        self._partition_count = partition_count
        self._waiting: asyncio.Queue[tuple[int, OwnedPartition]] = asyncio.Queue()
        self._takeovers: dict[int, asyncio.Task[None]] = {}
        self._committed: dict[TopicPartition, Committed] = {}
        self._free = asyncio.Semaphore(_TAKEOVERS_AT_ONCE)

    async def on_assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """Queue new partitions for takeover; they are not read until their books are rebuilt."""
        market, vision = self._partitions.inputs
        for number in sorted({tp.partition for tp in partitions}):
            if any(tp not in partitions for tp in self._partitions.of(number)):
                raise BusError(
                    f"partition {number} of {market!r} and of {vision!r} went to different workers; both topics need "
                    "the same partition count, and every member of the group the range assignor"
                )
            if self._partitions.owned(number) is None:
                owned = self._partitions.add(number)
                self._consumer.pause(self._partitions.of(number))
                self._waiting.put_nowait((number, owned))
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
            self._partitions.remove(number)
            self._takeovers.pop(number, None)
            for tp in self._partitions.of(number):
                self._committed.pop(tp, None)

    async def run(self) -> None:
        """Take over what is queued, a few partitions at a time, for ever; cancel to end."""
        async with asyncio.TaskGroup() as takeovers:
            while True:
                number, owned = await self._waiting.get()
                if self._partitions.owned(number) is owned and not owned.leaving:
                    self._takeovers[number] = takeovers.create_task(self._take_over(number, owned), name=f"take-over-{number}")

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

    async def _take_over(self, number: int, owned: OwnedPartition) -> None:
        tps = self._partitions.of(number)
        async with self._free:
            takeover = await self._recover(number, tps)
        if self._partitions.owned(number) is not owned or owned.leaving:
            return
        self._partitions.taken_over(owned, takeover)
        for tp in tps:
            self._consumer.seek(tp, takeover.start[tp])
        await self.commit()
        self._consumer.resume(tps)
        self._work.taken_over(number)
        _log.info("taken_over", partition=number, behind=sum(takeover.ends[tp] - takeover.start[tp] for tp in tps))

    async def _recover(self, number: int, tps: list[TopicPartition]) -> Takeover:
        """Rebuild a partition, through outages of the broker; raise OffsetOutOfRangeError."""
        while True:
            try:
                # Those of partition 0 too, which there always was: a partition that is new has no commit to tell by.
                committed = await self._consumer.committed([*tps, *self._partitions.of(0)])
                self._refuse_other_count(committed)
                return await self._recovery.take_over(number, committed)
            except OffsetOutOfRangeError:
                raise
            except BusError as error:
                # A worker that ended here would meet the same broker when it is started again.
                _log.warning("take_over_failed", partition=number, error=str(error))
                await asyncio.sleep(_RETRY_S)

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
