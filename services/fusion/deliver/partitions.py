"""The partitions that the worker owns: whether each has been taken over and caught up, its watermarks, and what to commit.

A partition number is owned, read and handed back in both input topics at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from services.core import metrics
from services.core.bus import Position, TopicPartition
from services.fusion.deliver.history import PartitionHistory
from services.fusion.deliver.recovery import Takeover
from services.fusion.deliver.watermark import PartitionWatermark, Watermarks


@dataclass(slots=True)
class OwnedPartition:
    """One partition number of both input topics."""

    history: PartitionHistory = field(default_factory=PartitionHistory)
    behind: dict[TopicPartition, int] = field(default_factory=dict)
    """Where the log ended at the takeover, for topics that have not been read up to there."""
    taken_over: bool = False
    leaving: bool = False
    """True while it is handed back: records fetched meanwhile are left to its next owner."""


class Partitions:
    """All partitions owned."""

    def __init__(self, inputs: tuple[str, str], outputs: tuple[str, str]) -> None:
        """Own nothing yet. `inputs` are the market and vision topics, `outputs` those of signals and audit."""
        self.inputs = inputs
        self.watermarks = Watermarks()
        self._outputs = outputs
        self._owned: dict[int, OwnedPartition] = {}

    def owned(self, number: int) -> OwnedPartition | None:
        """Return a partition, None when it is not owned."""
        return self._owned.get(number)

    def add(self, number: int) -> OwnedPartition:
        """Own a partition that has not been taken over yet."""
        owned = self._owned[number] = OwnedPartition()
        return owned

    def remove(self, number: int) -> None:
        """Own a partition no longer."""
        del self._owned[number]
        for tp in self.of(number):
            self.watermarks.revoke(tp)

    def of(self, number: int) -> list[TopicPartition]:
        """Return the partition of both input topics."""
        return [TopicPartition(topic, number) for topic in self.inputs]

    def surveyed(self, owned: OwnedPartition, takeover: Takeover) -> None:
        """Keep what a takeover found in the partition's outputs."""
        owned.history = takeover.history

    def taken_over(self, owned: OwnedPartition, takeover: Takeover) -> None:
        """Go on from where a takeover found the partition's work, its books being rebuilt."""
        owned.behind = {tp: end for tp, end in takeover.ends.items() if takeover.start[tp] < end}
        for tp in self.of(takeover.partition):
            inherited = (takeover.outputs_read_from, takeover.ends[tp])
            self.watermarks.assign(PartitionWatermark(tp, takeover.start[tp], takeover.output_ends, inherited))
        owned.taken_over = True
        if not owned.behind:
            owned.history.caught_up()

    def reading(self, tp: TopicPartition) -> PartitionWatermark | None:
        """Return the watermark of a partition whose records are folded, None when it is not owned or is being handed back."""
        owned = self._owned.get(tp.partition)
        return None if owned is None or owned.leaving else self.watermarks.get(tp)

    @property
    def rebuilt(self) -> bool:
        """Return whether every partition's books are rebuilt."""
        return all(owned.taken_over for owned in self._owned.values())

    @property
    def caught_up(self) -> bool:
        """Return whether every partition `may_decide`."""
        return all(map(self.may_decide, self._owned))

    def may_decide(self, number: int) -> bool:
        """Return whether all was read that the log held when the partition was taken over: before that, nothing is asked of it.

        A decision on half of the log could rest on less than one that was published before the takeover.
        """
        owned = self._owned.get(number)
        return owned is not None and owned.taken_over and not owned.behind

    def readable(self, assigned: Iterable[TopicPartition]) -> list[TopicPartition]:
        """Return those of `assigned` whose books are rebuilt."""
        return [tp for tp in assigned if tp.partition in self._owned and self._owned[tp.partition].taken_over]

    def folded_up_to(self, position: Callable[[TopicPartition], int | None]) -> None:
        """Note that every record below each partition's `position` is folded.

        The position, not the last record's offset, is compared with the log's end at the takeover: the log's last offsets may carry no
        record (compaction, transactions). Empty polls say nothing: a slow broker returns them in the middle of a log.
        """
        for owned in self._owned.values():
            if owned.behind and not owned.leaving:
                owned.behind = {tp: end for tp, end in owned.behind.items() if (at := position(tp)) is None or at < end}
                if not owned.behind:
                    owned.history.caught_up()

    def acknowledged(self, position: Position) -> None:
        """Note an acknowledged signal or audit record, so that commits name where outcomes are found."""
        at = self._outputs.index(position.topic)
        for tp in self.of(position.partition):
            watermark = self.watermarks.get(tp)
            if watermark is not None:
                ends = list(watermark.output_ends)
                ends[at] = max(ends[at], position.offset + 1)
                watermark.output_ends = tuple(ends)

    def finished(self) -> dict[TopicPartition, int]:
        """Return for each partition the offset below which every record is finished."""
        return {watermark.partition: watermark.committable()[0] for watermark in self.watermarks}

    def update_gauges(self) -> None:
        """Show how many records are unfinished."""
        metrics.UNFINISHED_RECORDS.set(self.watermarks.unfinished)
