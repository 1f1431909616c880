"""A partition commits what is acknowledged and no more, with the place from which its books are restored as of then."""

from __future__ import annotations

import asyncio
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.bus import BusError, Committed, Position, Record
from services.core.folding.disposition import Disposition, RecordResult
from services.core.folding.partition import Partition, rebuild_from

KEEP = 5
Acks: TypeAlias = asyncio.Future[list[Position]]


class LastFew:
    """Books that need the last few records."""

    def __init__(self) -> None:
        self._offsets: list[int] = []

    def take(self, record: Record) -> RecordResult:
        self._offsets = [*self._offsets, record.offset][-KEEP:]
        return RecordResult(Disposition.FOLDED)

    def take_again(self, record: Record, result: RecordResult) -> RecordResult:
        raise AssertionError(f"nothing here awaits news: {record}, {result}")

    def needed_from(self) -> int | None:
        return self._offsets[0] if self._offsets else None


def fold(partition: Partition[RecordResult], count: int, acknowledged: Acks) -> None:
    end = partition.next_offset + count
    for offset in range(partition.next_offset, end):
        partition.books.take(Record("candles", 0, offset, 0, b"A.X", b""))
    partition.begin(end, acknowledged)


@given(st.lists(st.integers(0, 9), max_size=12), st.integers(0, 100), st.data())
def test_in_whatever_order_acknowledgements_come_no_commit_passes_one_that_is_missing(
    batches: list[int], start: int, data: st.DataObject
) -> None:
    async def run() -> None:
        partition = Partition(LastFew(), start)
        acks: list[Acks] = [asyncio.get_running_loop().create_future() for _ in batches]
        for count, ack in zip(batches, acks, strict=True):
            fold(partition, count, ack)
        for index in data.draw(st.permutations(range(len(batches)))):
            acks[index].set_result([])
            partition.advance()
            finished = next((number for number, ack in enumerate(acks) if not ack.done()), len(acks))
            if not finished:
                assert partition.to_commit is None
                continue
            end = start + sum(batches[:finished])
            assert partition.to_commit is not None
            assert partition.to_commit.offset == end
            assert rebuild_from(partition.to_commit) == max(start, end - KEEP), "all that the books held at that offset"

    asyncio.run(run())


async def test_what_is_committed_is_not_committed_again() -> None:
    partition = Partition(LastFew(), 0)
    done: Acks = asyncio.gather()
    fold(partition, 3, done)
    await partition.settle()
    first = partition.to_commit
    assert first == Committed(3, "rebuild_from=0")
    fold(partition, 3, done)
    partition.committed(first)
    assert partition.to_commit is None
    partition.advance()
    assert partition.to_commit == Committed(6, "rebuild_from=1")


async def test_offsets_without_a_record_are_passed_behind_what_is_unfinished_before_them() -> None:
    partition = Partition(LastFew(), 0)
    slow: Acks = asyncio.get_running_loop().create_future()
    fold(partition, 2, slow)
    partition.skip_to(5)
    partition.skip_to(4)
    partition.advance()
    assert (partition.next_offset, partition.finished) == (5, 0)
    slow.set_result([])
    await partition.settle()
    assert partition.to_commit == Committed(5, "rebuild_from=0")


async def test_a_record_that_the_broker_did_not_take_is_told_and_not_passed() -> None:
    partition = Partition(LastFew(), 0)
    refused: Acks = asyncio.get_running_loop().create_future()
    refused.set_exception(BusError("not taken"))
    fold(partition, 2, asyncio.gather())
    fold(partition, 2, refused)
    with pytest.raises(BusError, match="not taken"):
        await partition.settle()
    assert partition.to_commit == Committed(2, "rebuild_from=0")


async def test_settling_waits_for_the_oldest_and_a_wait_that_is_cancelled_leaves_it_alone() -> None:
    partition = Partition(LastFew(), 0)
    first: Acks = asyncio.get_running_loop().create_future()
    second: Acks = asyncio.get_running_loop().create_future()
    fold(partition, 2, first)
    fold(partition, 3, second)
    waiting = asyncio.create_task(partition.settle(at_most=3))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert not first.cancelled()
    waiting = asyncio.create_task(partition.settle(at_most=3))
    first.set_result([])
    await waiting
    assert partition.to_commit == Committed(2, "rebuild_from=0")


@pytest.mark.parametrize(("metadata", "start"), [("rebuild_from=17", 17), ("", 0), ("rebuild_from=", 0), ("by hand", 0)])
def test_a_commit_that_does_not_say_from_where_is_rebuilt_from_the_beginning(metadata: str, start: int) -> None:
    assert rebuild_from(Committed(20, metadata)) == start
