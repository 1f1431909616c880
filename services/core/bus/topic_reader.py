"""Spans of topics, read once from end to end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final, NamedTuple

from services.core.bus import Bus, BusError, Reader, Record, TopicPartition

TOPIC: Final = "topic"
"""What a command line says instead of a file, to mean the topics themselves."""
CLIENT: Final = "aquiline-replay"
_POLL_MS: Final = 250
_BATCH: Final = 2_000


class Span(NamedTuple):
    """Append times in milliseconds since 1970, the first included and the second not; None for no bound."""

    since_ms: int | None = None
    until_ms: int | None = None


async def partitions_of(bus: Bus, topic: str) -> list[TopicPartition]:
    """Return every partition of `topic`; raise BusError when there is none of that name."""
    admin = await bus.admin()
    try:
        found = await admin.describe([topic])
    finally:
        await admin.close()
    if topic not in found:
        raise BusError(f"topic {topic!r} does not exist on {bus.address}; is run_mode the one that was written in?")
    return [TopicPartition(topic, number) for number in range(found[topic].partitions)]


async def offsets_of(reader: Reader, tp: TopicPartition, span: Span) -> tuple[int, int]:
    """Return the first offset of `span` in a partition, and the one after its last."""
    begin, end = (await reader.beginning_offsets([tp]))[tp], (await reader.end_offsets([tp]))[tp]
    first, stop = begin, end
    if span.since_ms is not None:
        found = (await reader.offsets_for_times({tp: span.since_ms}))[tp]
        first = end if found is None else found
    if span.until_ms is not None:
        found = (await reader.offsets_for_times({tp: span.until_ms}))[tp]
        stop = end if found is None else found
    return first, max(first, stop)


async def read_span(reader: Reader, tp: TopicPartition, span: Span) -> AsyncIterator[Record]:
    """Yield the records of a partition that were appended within `span`, in order; raise BusError."""
    first, stop = await offsets_of(reader, tp, span)
    async for record in read_offsets(reader, tp, first, stop):
        yield record


async def read_offsets(reader: Reader, tp: TopicPartition, first: int, stop: int) -> AsyncIterator[Record]:
    """Yield the records of a partition from offset `first` to the one before `stop`, in order; raise BusError."""
    if first >= stop:
        return
    await reader.read({tp: first})
    while reader.position(tp) < stop:
        for record in await reader.poll(timeout_ms=_POLL_MS, max_records=_BATCH):
            if record.offset < stop:
                yield record
