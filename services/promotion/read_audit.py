"""Reads one side's trail from the log: audit records since a moment, and the outcomes of its signals where somebody scores them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from typing import Final, TypeVar

from pydantic import ValidationError

from schemas import AuditRecord, RunMode, SignalOutcome, Topic, topic_name
from services.core.bus import Bus, BusError, Record, TopicPartition
from services.promotion.audit_summary import AuditSummary
from services.promotion.decision_pairs import SideRecords

_POLL_MS: Final = 500
_BATCH: Final = 5_000

M = TypeVar("M", AuditRecord, SignalOutcome)

Tell = Callable[[str, int, int], None]
"""Is told of progress: topic, records read, records there."""


async def read_side(bus: Bus, run_mode: RunMode, symbols: Collection[str], since_ms: int, tell: Tell) -> SideRecords:
    """Return what `run_mode` left of `symbols` (of all when empty) since `since_ms`, by append time.

    Raises BusError when its topics do not exist.
    """
    keys = {symbol.encode() for symbol in symbols}
    audit, outcomes = (topic_name(topic, run_mode) for topic in (Topic.SIGNAL_AUDIT, Topic.SIGNAL_OUTCOMES))
    ends = [AuditSummary.of(_decoded(AuditRecord, record)) async for record in _records(bus, audit, keys, since_ms, tell)]
    scored = [_decoded(SignalOutcome, record) async for record in _records(bus, outcomes, keys, since_ms, tell)]
    return SideRecords(ends, {outcome.signal_id: outcome for outcome in scored})


def _decoded(model: type[M], record: Record) -> M:
    try:
        return model.decode(record.value or b"")
    except ValidationError as error:
        raise BusError(
            f"offset {record.offset} of {record.topic}[{record.partition}] is no {model.__name__} ({error.errors()[0]['msg']}): "
            "somebody else writes there, or this release is too old to read it"
        ) from error


async def _records(bus: Bus, topic: str, keys: Collection[bytes], since_ms: int, tell: Tell) -> AsyncIterator[Record]:
    """Yield a topic's records of `keys` (of all when empty) from `since_ms` to where it ends now."""
    admin = await bus.admin()
    try:
        info = (await admin.describe([topic])).get(topic)
    finally:
        await admin.close()
    if info is None:
        raise BusError(f"topic {topic!r} does not exist on {bus.address}; create it with `aquiline topics create`")
    reader = await bus.reader(client_id="aquiline-shadow")
    try:
        partitions = [TopicPartition(topic, number) for number in range(info.partitions)]
        ends = await reader.end_offsets(partitions)
        starts = await reader.offsets_for_times(dict.fromkeys(partitions, since_ms))
        start = {tp: ends[tp] if (at := starts[tp]) is None else at for tp in partitions}
        total, done = sum(ends[tp] - start[tp] for tp in partitions), 0
        await reader.read(start)
        while any(reader.position(tp) < end for tp, end in ends.items()):
            records = await reader.poll(timeout_ms=_POLL_MS, max_records=_BATCH)
            for record in records:
                if record.offset < ends[TopicPartition(record.topic, record.partition)] and (not keys or record.key in keys):
                    yield record
            done += len(records)
            tell(topic, min(done, total), total)
    finally:
        await reader.close()
