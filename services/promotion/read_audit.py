"""Reads one side's audit records and, where its signals are scored, their outcomes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from typing import TypeVar

from pydantic import ValidationError

from schemas import AuditRecord, RunMode, SignalOutcome, Topic, topic_name
from services.core.bus import Bus, BusError, Record
from services.core.bus.topic_reader import TimeRange, offsets_within, partitions_of, read_offsets
from services.promotion.audit_summary import AuditSummary
from services.promotion.decision_pairs import SideRecords

M = TypeVar("M", AuditRecord, SignalOutcome)

OnProgress = Callable[[str, int, int], None]
"""Called with the topic, the count of offsets read and the count in all."""


async def read_side(bus: Bus, run_mode: RunMode, symbols: Collection[str], since_ms: int, on_progress: OnProgress) -> SideRecords:
    """Return the records of `symbols` (all when empty) that `run_mode` wrote since `since_ms`, by append time.

    Raises BusError when its topics do not exist.
    """
    keys = {symbol.encode() for symbol in symbols}
    audit, outcomes = (topic_name(topic, run_mode) for topic in (Topic.SIGNAL_AUDIT, Topic.SIGNAL_OUTCOMES))
    summaries = [AuditSummary.of(_decoded(AuditRecord, record)) async for record in _records(bus, audit, keys, since_ms, on_progress)]
    scored = [_decoded(SignalOutcome, record) async for record in _records(bus, outcomes, keys, since_ms, on_progress)]
    return SideRecords(summaries, {outcome.signal_id: outcome for outcome in scored})


def _decoded(model: type[M], record: Record) -> M:
    try:
        return model.decode(record.value or b"")
    except ValidationError as error:
        raise BusError(
            f"offset {record.offset} of {record.topic}[{record.partition}] is not a valid {model.__name__} ({error.errors()[0]['msg']}): "
            "another program writes to the topic, or a newer release does"
        ) from error


async def _records(bus: Bus, topic: str, keys: Collection[bytes], since_ms: int, on_progress: OnProgress) -> AsyncIterator[Record]:
    """Yield the records of a topic with one of `keys` (all when empty), from `since_ms` to its present end."""
    reader = await bus.reader(client_id="aquiline-shadow")
    try:
        offsets = await offsets_within(reader, await partitions_of(bus, topic), TimeRange(since_ms))
        async for record in read_offsets(reader, offsets, lambda done, total: on_progress(topic, done, total)):
            if not keys or record.key in keys:
                yield record
    finally:
        await reader.close()
