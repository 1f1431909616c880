"""Reads one side's audit records, its signals' horizons and, where they are scored, their outcomes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from typing import TypeVar
from uuid import UUID

from pydantic import ValidationError

from schemas import AuditRecord, Cancel, RunMode, Signal, SignalOutcome, Topic, decode_signal_message, topic_name
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
    topics = (Topic.SIGNAL_AUDIT, Topic.SIGNAL_OUTCOMES, Topic.STRATEGY_SIGNALS)
    audit, outcomes, signals = (topic_name(topic, run_mode) for topic in topics)
    summaries = [AuditSummary.of(_decoded(AuditRecord, record)) async for record in _records(bus, audit, keys, since_ms, on_progress)]
    scored = [_decoded(SignalOutcome, record) async for record in _records(bus, outcomes, keys, since_ms, on_progress)]
    first: dict[UUID, SignalOutcome] = {}
    for outcome in scored:
        first.setdefault(outcome.signal_id, outcome)
    horizons_ms: dict[UUID, int] = {}
    async for record in _records(bus, signals, keys, since_ms, on_progress):
        message = _decoded_signal(record)
        if isinstance(message, Signal) and message.horizon_end_ms is not None:
            horizons_ms.setdefault(message.signal_id, message.horizon_end_ms)
    return SideRecords(summaries, first, horizons_ms)


def _decoded(model: type[M], record: Record) -> M:
    try:
        return model.decode(record.value or b"")
    except ValidationError as error:
        raise _not_valid(record, model.__name__, error) from error


def _decoded_signal(record: Record) -> Signal | Cancel:
    try:
        return decode_signal_message(record.value or b"")
    except ValidationError as error:
        raise _not_valid(record, "signal or cancel", error) from error


def _not_valid(record: Record, wanted: str, error: ValidationError) -> BusError:
    return BusError(
        f"offset {record.offset} of {record.topic}[{record.partition}] is not a valid {wanted} ({error.errors()[0]['msg']}): "
        "another program writes to the topic, or a newer release does"
    )


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
