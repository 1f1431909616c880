"""Reads topics from one point to another, outside any consumer group, and ends there: every bounded read goes through this module.

A range is given in offsets or in append times. Records that are appended meanwhile are not read.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from services.core.bus.port import Bus, BusError, Reader, Record, TopicPartition

TOPIC: Final = "topic"
"""The word that a command takes in place of a file's name, to read from the topics."""
_POLL_MS: Final = 250
_BATCH: Final = 2_000
_QUIET_MS: Final = 30_000
"""For so long a broker that answers may return no record of those that it says it holds."""


class TimeRange(NamedTuple):
    """Append times in milliseconds since 1970: the first is included, the second is not. None is no bound."""

    since_ms: int | None = None
    until_ms: int | None = None


async def partitions_of(bus: Bus, topic: str) -> list[TopicPartition]:
    """Return every partition of `topic`; raise BusError when it does not exist."""
    admin = await bus.admin()
    try:
        found = await admin.describe([topic])
    finally:
        await admin.close()
    if topic not in found:
        raise BusError(
            f"topic {topic!r} does not exist on {bus.address}; check run_mode, which is part of the name, "
            "or create it with `aquiline topics create`"
        )
    return [TopicPartition(topic, number) for number in range(found[topic].partitions)]


async def offsets_within(reader: Reader, partitions: Sequence[TopicPartition], times: TimeRange) -> dict[TopicPartition, range]:
    """Return the offsets of each partition whose records were appended within `times`; raise BusError."""
    begins, ends = await reader.beginning_offsets(partitions), await reader.end_offsets(partitions)
    firsts, stops = dict(begins), dict(ends)
    for bound_ms, offsets in ((times.since_ms, firsts), (times.until_ms, stops)):
        if bound_ms is not None:
            found = await reader.offsets_for_times(dict.fromkeys(partitions, bound_ms))
            offsets.update({tp: ends[tp] if at is None else at for tp, at in found.items()})
    return {tp: range(firsts[tp], max(firsts[tp], stops[tp])) for tp in partitions}


async def read_within(bus: Bus, reader: Reader, topic: str, times: TimeRange) -> AsyncIterator[Record]:
    """Yield the records of `topic` that were appended within `times`, one partition after the other; raise BusError."""
    for tp, offsets in (await offsets_within(reader, await partitions_of(bus, topic), times)).items():
        async for record in read_offsets(reader, {tp: offsets}):
            yield record


async def read_offsets(
    reader: Reader, offsets: Mapping[TopicPartition, range], on_progress: Callable[[int, int], None] | None = None
) -> AsyncIterator[Record]:
    """Yield the records at `offsets`, those of one partition in order; raise BusError.

    `on_progress` is called after each batch with the count of offsets passed and the count in all.
    """
    wanted = {tp: one for tp, one in offsets.items() if one}
    total = sum(map(len, wanted.values()))
    async for batch in read_batches(reader, wanted):
        for record in batch:
            yield record
        if on_progress is not None:
            on_progress(sum(min(reader.position(tp), one.stop) - one.start for tp, one in wanted.items()), total)


async def read_batches(reader: Reader, offsets: Mapping[TopicPartition, range]) -> AsyncIterator[list[Record]]:
    """Yield what `read_offsets` does in batches, for a reader of many records: one by one they take 1 us more each."""
    wanted = {tp: one for tp, one in offsets.items() if one}
    if not wanted:
        return
    await reader.read({tp: one.start for tp, one in wanted.items()})
    async for batch in poll_until(reader, {tp: one.stop for tp, one in wanted.items()}):
        if any(reader.position(tp) > one.stop for tp, one in wanted.items()):
            yield [record for record in batch if record.offset < wanted[TopicPartition(record.topic, record.partition)].stop]
        else:
            yield batch


async def poll_until(reader: Reader, stops: Mapping[TopicPartition, int], *, max_records: int = _BATCH) -> AsyncIterator[list[Record]]:
    """Yield batches from a reader that reads these partitions, until each is at its stop; the last batches may reach beyond it.

    Raises BusError when the broker does not answer, or returns nothing for 30 s of what it says it holds.
    """
    quiet_ms = 0
    while behind := [tp for tp, stop in stops.items() if reader.position(tp) < stop]:
        if batch := await reader.poll(timeout_ms=_POLL_MS, max_records=max_records):
            quiet_ms = 0
            yield batch
            continue
        # A poll that returns nothing looks the same when the broker is gone.
        await reader.end_offsets(behind)
        quiet_ms += _POLL_MS
        if quiet_ms >= _QUIET_MS:
            raise BusError(
                f"no record of {_named(reader, behind, stops)} has arrived for {_QUIET_MS // 1000} s, although the broker answers; "
                "check the broker's log for partitions without a leader"
            )


def _named(reader: Reader, behind: Iterable[TopicPartition], stops: Mapping[TopicPartition, int]) -> str:
    return ", ".join(f"{tp.topic}[{tp.partition}] (offset {reader.position(tp)} of {stops[tp]})" for tp in behind)
