"""Puts what is read from two topics back into the order in which it was appended, partition by partition. Pure.

A consumer reads two topics at two speeds: after an outage signals come hours before their bars, or bars hours before their signals.
What is judged must not depend on that, and what waits must not pile up. So of two heads the one appended first goes first, and a
head whose other side is empty waits until the broker has said, later than that head arrived, that there is nothing before it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

E = TypeVar("E")


class Head(NamedTuple, Generic[E]):
    """Something read that has not had its turn."""

    timestamp_ms: int
    arrival: int
    item: E


@dataclass(slots=True)
class _Side(Generic[E]):
    """One topic of one partition."""

    next_offset: int
    waiting: deque[Head[E]] = field(default_factory=deque)
    ended: int = 0
    """What arrived before this on the other side has nothing of this side before it."""


class Merge(Generic[E]):
    """Two sides a partition, `0` and `1`. Of records with one timestamp, side `0` goes first."""

    def __init__(self) -> None:
        """Start without partitions."""
        self._partitions: dict[int, tuple[_Side[E], _Side[E]]] = {}
        self._arrivals = 0

    def begin(self, partition: int, next_offsets: tuple[int, int]) -> None:
        """Take `partition` on, with the offsets that are read next on both sides."""
        self._partitions[partition] = (_Side(next_offsets[0]), _Side(next_offsets[1]))

    def partitions(self) -> list[int]:
        """Return the partitions that were begun."""
        return sorted(self._partitions)

    def drop(self) -> None:
        """Forget everything: what had no turn is read again."""
        self._partitions.clear()

    def holds(self, partition: int) -> bool:
        """Return whether `partition` was begun."""
        return partition in self._partitions

    def put(self, side: int, partition: int, offset: int, timestamp_ms: int, item: E) -> None:
        """Add what was read; what comes again is left out."""
        one = self._partitions[partition][side]
        if offset < one.next_offset:
            return
        self._arrivals += 1
        one.next_offset = offset + 1
        one.waiting.append(Head(timestamp_ms, self._arrivals, item))

    def take(self) -> E | None:
        """Return what is next in some partition, None when every partition waits."""
        for sides in self._partitions.values():
            side = _next(sides)
            if side is not None:
                return side.waiting.popleft().item
        return None

    def awaited(self) -> list[tuple[int, int]]:
        """Return the empty sides that others wait for, each as side and partition."""
        return [
            (number, partition)
            for partition, sides in self._partitions.items()
            for number in (0, 1)
            if not sides[number].waiting and sides[1 - number].waiting
        ]

    def ask(self) -> int:
        """Return a ticket to be handed to `end` with what the broker says from now on."""
        return self._arrivals + 1

    def end(self, side: int, partition: int, end_offset: int, ticket: int) -> None:
        """Note that the log of a side ended at `end_offset`, as the broker said after `ticket` was drawn."""
        sides = self._partitions.get(partition)
        if sides is not None and sides[side].next_offset >= end_offset:
            sides[side].ended = max(sides[side].ended, ticket)

    def next_offset(self, side: int, partition: int) -> int:
        """Return the offset that is read next."""
        return self._partitions[partition][side].next_offset

    def skip_to(self, side: int, partition: int, offset: int) -> None:
        """Read on from `offset`: the log has nothing before it."""
        self._partitions[partition][side].next_offset = offset

    def size(self, side: int, partition: int) -> int:
        """Return how much waits."""
        return len(self._partitions[partition][side].waiting)


def _next(sides: tuple[_Side[E], _Side[E]]) -> _Side[E] | None:
    first, second = sides
    if first.waiting and second.waiting:
        return first if first.waiting[0].timestamp_ms <= second.waiting[0].timestamp_ms else second
    for one, other in ((first, second), (second, first)):
        if one.waiting and one.waiting[0].arrival < other.ended:
            return one
    return None
