"""Watermarks: per partition, the highest offset below which every record is finished, so that commits never pass unfinished work.

A record is finished once it is folded and everything that holds it (its triggers' outcomes, its dead letter) is acknowledged. Unlike
`services/core/folding/partition.py`, which drains batches in order, triggers hold their records for seconds and finish in any order.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from services.core.bus import TopicPartition


class PartitionWatermark:
    """One partition's watermark, for one span of owning it: a release that comes after the partition was lost goes nowhere."""

    __slots__ = ("_held", "_inherited", "_inherited_until", "_next", "output_ends", "partition")

    def __init__(
        self,
        partition: TopicPartition,
        next_offset: int,
        output_ends: tuple[int, ...] = (),
        inherited: tuple[tuple[int, ...], int] = ((), 0),
    ) -> None:
        """Start at `next_offset`, the first record to come.

        `output_ends` are the next offsets of the output partitions as far as acknowledged; keep them up to date. What a
        commit names of them is such that no outcome of an uncommitted record lies before it: for records below the offset in
        `inherited`, whose outcomes an earlier owner may have written, that is the output ends beside it.
        """
        self.partition = partition
        self.output_ends = output_ends
        self._inherited, self._inherited_until = inherited
        self._next = next_offset
        self._held: OrderedDict[int, tuple[int, tuple[int, ...]]] = OrderedDict()

    @property
    def next_offset(self) -> int:
        """Return the offset below which every record has been taken in."""
        return self._next

    @property
    def unfinished(self) -> int:
        """Return how many records are held."""
        return len(self._held)

    def advance(self, next_offset: int) -> None:
        """Note that every record below `next_offset` has been taken in; raise ValueError when offsets go backwards."""
        if next_offset < self._next:
            raise ValueError(f"{self.partition.topic}[{self.partition.partition}]: offset {next_offset} came after {self._next - 1}")
        self._next = next_offset

    def hold(self, offset: int) -> None:
        """Add a holder to the record at `offset`, the one last seen or about to be seen."""
        holders, ends = self._held.get(offset, (0, self._ends_before(offset)))
        if not holders and self._held and offset < next(reversed(self._held)):
            raise ValueError(f"{self.partition.topic}[{self.partition.partition}]: offset {offset} is held out of order")
        self._held[offset] = (holders + 1, ends)

    def release(self, offset: int) -> None:
        """Take one holder away from the record at `offset`; raise KeyError when it has none."""
        holders, ends = self._held[offset]
        if holders == 1:
            del self._held[offset]
        else:
            self._held[offset] = (holders - 1, ends)

    def committable(self) -> tuple[int, tuple[int, ...]]:
        """Return the offset to commit (the first unfinished record's, else the next one) and the output ends to name with it."""
        if not self._held:
            return self._next, self._ends_before(self._next)
        first = next(iter(self._held))
        return first, self._held[first][1]

    def _ends_before(self, offset: int) -> tuple[int, ...]:
        return self._inherited if offset < self._inherited_until else self.output_ends


class Watermarks:
    """The watermarks of all partitions that are owned."""

    def __init__(self) -> None:
        """Start owning nothing."""
        self._owned: dict[TopicPartition, PartitionWatermark] = {}

    def assign(self, watermark: PartitionWatermark) -> None:
        """Own a partition from where `watermark` starts, forgetting what was held there before."""
        self._owned[watermark.partition] = watermark

    def revoke(self, partition: TopicPartition) -> None:
        """Own `partition` no longer."""
        self._owned.pop(partition, None)

    def get(self, partition: TopicPartition) -> PartitionWatermark | None:
        """Return the watermark of `partition`, None when it is not owned."""
        return self._owned.get(partition)

    def __iter__(self) -> Iterator[PartitionWatermark]:
        return iter(self._owned.values())

    @property
    def unfinished(self) -> int:
        """Return how many records are held in all."""
        return sum(watermark.unfinished for watermark in self._owned.values())
