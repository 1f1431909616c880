"""Which partitions the worker owns: taken over in the background, committed by watermark, handed back drained.

Both input topics share their partitions, and a partition number is owned, read and handed back as one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog

from services.core.bus import BusError, Committed, Consumer, OffsetOutOfRangeError, Position, TopicPartition
from services.core.errors import ServiceError
from services.fusion.deliver.recovery import Known, Recovery, Takeover, decode_metadata, encode_metadata
from services.fusion.deliver.watermark import PartitionWatermark, Watermarks
from services.fusion.state.intake import Intake

_POLLS_AT_END: Final = 5
"""Polls in a row without a record after which a log's last offsets are taken to carry none (compaction, transactions)."""

_TAKEOVERS_AT_ONCE: Final = 4
"""A takeover mostly waits for the broker (0.7 s of it on an idle one): twelve partitions one by one would take 9 s."""
_RETRY_S: Final = 0.5

_log = structlog.get_logger()


class PartitionsChangedError(ServiceError):
    """The topics' partition count is not what it was."""


class Owner(Protocol):
    """The worker, as ownership sees it."""

    def taken_over(self, partition: int) -> None:
        """Take note that a partition's books stand."""
        ...

    async def hand_back(self, partitions: frozenset[int]) -> None:
        """Drain these partitions."""
        ...


@dataclass(slots=True)
class Owned:
    """One partition number of both input topics."""

    known: Known = field(default_factory=Known)
    behind: dict[TopicPartition, int] = field(default_factory=dict)
    """Where the log ended at the takeover, for topics that have not been read up to there."""
    taken_over: bool = False
    takeover: asyncio.Task[None] | None = None
    leaving: bool = False
    """True while it is being handed back: what is still fetched of it is for whoever owns it next."""


class Ownership:
    """A RebalanceListener that takes partitions over and hands them back."""

    def __init__(self, consumer: Consumer, recovery: Recovery, intake: Intake, owner: Owner, partitions: int) -> None:
        """Read through `consumer`; tell `owner`. The topics have `partitions`."""
        self._consumer = consumer
        self._recovery = recovery
        self._topics = (intake.market_topic, intake.vision_topic)
        self._owner = owner
        self._partitions = partitions
        self.watermarks = Watermarks()
        self._owned: dict[int, Owned] = {}
        self._todo: asyncio.Queue[tuple[int, Owned]] = asyncio.Queue()
        self._committed: dict[TopicPartition, tuple[int, str]] = {}
        self._empty_polls = 0
        self._free = asyncio.Semaphore(_TAKEOVERS_AT_ONCE)

    def owned(self, partition: int) -> Owned | None:
        """Return what is known of a partition number, None when it is not owned."""
        return self._owned.get(partition)

    def reading(self, tp: TopicPartition) -> PartitionWatermark | None:
        """Return the watermark of a partition whose records are taken in, None when it is not owned or is being handed back."""
        owned = self._owned.get(tp.partition)
        return None if owned is None or owned.leaving else self.watermarks.get(tp)

    @property
    def rebuilt(self) -> bool:
        """Return whether every partition's books stand."""
        return all(owned.taken_over for owned in self._owned.values())

    @property
    def caught_up(self) -> bool:
        """Return whether all was read that the log held when it was taken over: before that, nothing is asked.

        A decision on half of what is known could rest on less than one that was published before the takeover.
        """
        return all(owned.taken_over and not owned.behind for owned in self._owned.values())

    def readable(self, assigned: Iterable[TopicPartition]) -> list[TopicPartition]:
        """Return those of `assigned` whose books stand."""
        return [tp for tp in assigned if tp.partition in self._owned and self._owned[tp.partition].taken_over]

    async def on_assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """Queue what is new for takeover; it is not read until its books stand."""
        numbers = {tp.partition for tp in partitions}
        for number in sorted(numbers):
            if any(TopicPartition(topic, number) not in partitions for topic in self._topics):
                raise BusError(
                    f"partition {number} of {self._topics[0]!r} and of {self._topics[1]!r} went to different workers; both topics need "
                    "the same partition count, and every member of the group the range assignor"
                )
            if number not in self._owned:
                owned = self._owned[number] = Owned()
                self._consumer.pause([TopicPartition(topic, number) for topic in self._topics])
                self._todo.put_nowait((number, owned))

    async def on_revoked(self, partitions: frozenset[TopicPartition]) -> None:
        """Drain, commit and forget."""
        numbers = frozenset(tp.partition for tp in partitions if tp.partition in self._owned)
        if not numbers:
            return
        takeovers = []
        for number in numbers:
            owned = self._owned[number]
            owned.leaving = True
            if owned.takeover is not None and owned.takeover.cancel():
                takeovers.append(owned.takeover)
        if takeovers:
            # One that went on would fold into books that the partition's next takeover here is rebuilding.
            await asyncio.wait(takeovers)
        await self._owner.hand_back(numbers)
        await self.commit()
        for number in numbers:
            del self._owned[number]
            for topic in self._topics:
                self.watermarks.revoke(TopicPartition(topic, number))
                self._committed.pop(TopicPartition(topic, number), None)

    async def run(self) -> None:
        """Take over what is queued, a few partitions at a time, for ever; cancel to end."""
        async with asyncio.TaskGroup() as takeovers:
            while True:
                number, owned = await self._todo.get()
                if self._owned.get(number) is owned and not owned.leaving:
                    owned.takeover = takeovers.create_task(self._take_over(number, owned), name=f"take-over-{number}")

    def polled(self, *, empty: bool) -> None:
        """Take note of a poll: what lies below the log's end at the takeover may have been read by now."""
        self._empty_polls = self._empty_polls + 1 if empty else 0
        at_end = self._empty_polls >= _POLLS_AT_END
        for owned in self._owned.values():
            if owned.behind and owned.taken_over:
                owned.behind = (
                    {}
                    if at_end  # offsets that carry no record end a log as well
                    else {tp: end for tp, end in owned.behind.items() if (held := self.watermarks.get(tp)) and held.next_offset < end}
                )

    def acknowledged(self, position: Position, outputs: tuple[str, str]) -> None:
        """Take note of an acknowledged output, so that commits name where outcomes are found."""
        at = outputs.index(position.topic)
        for topic in self._topics:
            watermark = self.watermarks.get(TopicPartition(topic, position.partition))
            if watermark is not None:
                ends = list(watermark.output_ends)
                ends[at] = max(ends[at], position.offset + 1)
                watermark.output_ends = tuple(ends)

    async def commit(self) -> None:
        """Commit every watermark that has moved."""
        offsets = {}
        for watermark in self.watermarks:
            offset, ends = watermark.committable()
            wanted = (offset, encode_metadata(ends, self._partitions))
            if self._committed.get(watermark.partition) != wanted:
                offsets[watermark.partition] = Committed(*wanted)
        if not offsets:
            return
        try:
            await self._consumer.commit(offsets)
        except BusError as error:
            # Somebody else may own them by now: what is not committed is read again, by whoever does.
            _log.warning("commit_failed", error=str(error))
            return
        for tp, committed in offsets.items():
            self._committed[tp] = (committed.offset, committed.metadata)

    async def _take_over(self, number: int, owned: Owned) -> None:
        tps = [TopicPartition(topic, number) for topic in self._topics]
        async with self._free:
            takeover = await self._recover(number, tps)
        if self._owned.get(number) is not owned or owned.leaving:
            return
        owned.known = takeover.known
        owned.behind = {tp: end for tp, end in takeover.ends.items() if takeover.start[tp] < end}
        for tp in tps:
            self.watermarks.assign(
                PartitionWatermark(tp, takeover.start[tp], takeover.output_ends, (takeover.outputs_read_from, takeover.ends[tp]))
            )
            self._consumer.seek(tp, takeover.start[tp])
        owned.taken_over = True
        await self.commit()
        self._consumer.resume(tps)
        self._owner.taken_over(number)
        _log.info("taken_over", partition=number, behind=sum(takeover.ends[tp] - takeover.start[tp] for tp in tps))

    async def _recover(self, number: int, tps: list[TopicPartition]) -> Takeover:
        """Rebuild a partition, through outages of the broker; raise OffsetOutOfRangeError."""
        while True:
            try:
                # Those of partition 0 too, which there always was: a partition that is new has no commit to tell by.
                committed = await self._consumer.committed([*tps, *(TopicPartition(topic, 0) for topic in self._topics)])
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
            told = decode_metadata(held.metadata) if held is not None else None
            if told is not None and told.partitions != self._partitions:
                raise PartitionsChangedError(
                    f"topics {' and '.join(self._topics)} had {told.partitions} partitions when this group last committed and have "
                    f"{self._partitions} now: symbols have moved to other partitions, away from their history. Make new topics with one "
                    "count and copy the records over, then name a fusion.group and a fusion.log_id that are new as well"
                )
