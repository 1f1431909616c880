"""The signals that were published, from a file or the topic, compared with the audit: what one says, the other must say too.

A trigger whose signal is on the topic ends `published`, unless a cancel withdrew the signal: one that was acknowledged late or not at all
ends otherwise, and its cancel follows it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from uuid import UUID

from pydantic import ValidationError

from schemas import AuditRecord, Outcome, RunMode, Signal, Topic, decode_signal_message, topic_name
from services.core.bus import Bus
from services.core.bus.topic_reader import TimeRange, read_within
from services.core.exported_log import LogFileError
from services.replay.audit_trail import AuditEntry

SETTLING_MS: Final = 600_000
"""A signal is published first and audited when its answer has ended: an audit record later than this would be a fault of its own."""
_COMPARED: Final = (
    "trigger_id",
    "symbol",
    "interval",
    "mode",
    "action",
    "as_of",
    "prompt_hash",
    "prompt_version",
    "epoch",
    "prompt_tokens",
    "vision",
    "source",
    "engine",
    "model",
)
"""Fields that a signal and its audit record share. An audit record that a takeover wrote lacks those of the answer."""


@dataclass(frozen=True, slots=True)
class PublishedSignal:
    """A signal, where it is, and its bytes."""

    where: str
    signal: Signal
    value: bytes


@dataclass(slots=True)
class PublishedSignals:
    """The first body of each signal, the cancels, and a sentence for each unreadable record."""

    name: str
    by_id: dict[UUID, PublishedSignal] = field(default_factory=dict)
    cancels: dict[UUID, bytes] = field(default_factory=dict)
    """The first cancel of each signal that has one."""
    damaged: list[str] = field(default_factory=list)
    unsettled: set[UUID] = field(default_factory=set)
    """Signals outside the time range of the audit, or so close to its end that their audit record may be later."""

    def add(self, where: str, value: bytes, *, unsettled: bool = False) -> None:
        """Add a record of the signals topic."""
        try:
            message = decode_signal_message(value)
        except ValidationError as error:
            self.damaged.append(f"{where}: not a valid signal or cancel: {error.errors(include_url=False)[0]['msg']}")
            return
        if not isinstance(message, Signal):
            self.cancels.setdefault(message.signal_id, value)
        elif message.signal_id not in self.by_id:
            self.by_id[message.signal_id] = PublishedSignal(where, message, value)
            if unsettled:
                self.unsettled.add(message.signal_id)


def read_signals_file(file: Path) -> PublishedSignals:
    """Return the signals in `file`, one message a line; raise LogFileError when it cannot be read."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise LogFileError(f"signals file {str(file)!r} cannot be read: {error.strerror}") from error
    signals = PublishedSignals(file.name)
    for number, line in enumerate(content.splitlines(), 1):
        if line.strip():
            signals.add(f"{file.name}, line {number}", line)
    return signals


async def read_signals_topic(bus: Bus, run_mode: RunMode, times: TimeRange) -> PublishedSignals:
    """Return the signals that belong to audit records appended within `times`; raise BusError."""
    topic = topic_name(Topic.STRATEGY_SIGNALS, run_mode)
    signals = PublishedSignals(topic)
    reader = await bus.reader(client_id="aquiline-replay")
    # A signal is appended before its audit record, its cancel may be after it.
    around = TimeRange(None if times.since_ms is None else times.since_ms - SETTLING_MS)
    last_ms = 0
    records = []
    try:
        async for record in read_within(bus, reader, topic, around):
            if times.until_ms is None or record.timestamp_ms < times.until_ms + SETTLING_MS:
                records.append(record)
                last_ms = max(last_ms, record.timestamp_ms)
    finally:
        await reader.close()
    first_ms = times.since_ms or 0
    stop_ms = (last_ms + 1 if times.until_ms is None else times.until_ms) - SETTLING_MS
    for record in records:
        where = f"{topic}[{record.partition}] offset {record.offset}"
        signals.add(where, record.value or b"", unsettled=not first_ms <= record.timestamp_ms < stop_ms)
    return signals


def contradictions(entries: Sequence[AuditEntry], signals: PublishedSignals) -> Iterator[str]:
    """Yield a sentence for each trigger of which audit and signals say different things, or the audit two."""
    first: dict[UUID, AuditEntry] = {}
    for entry in entries:
        earlier = first.setdefault(entry.record.trigger_id, entry)
        if earlier.record.outcome is not entry.record.outcome:
            yield f"{_trigger(entry)}: its outcome is {_ended(entry.record)}, and {_ended(earlier.record)} in {earlier.where}"
    for entry in first.values():
        record = entry.record
        if record.outcome is Outcome.PUBLISHED and record.signal_id not in signals.by_id:
            yield f"{_trigger(entry)}: its outcome is published, but {signals.name} has no signal {record.signal_id}"
    for published in signals.by_id.values():
        if (problem := _problem_of(published, first.get(published.signal.trigger_id), signals)) is not None:
            yield problem


def _problem_of(published: PublishedSignal, entry: AuditEntry | None, signals: PublishedSignals) -> str | None:
    """Return how the audit contradicts a signal, None when it does not."""
    signal = published.signal
    if entry is None:
        if signal.signal_id in signals.unsettled:
            return None
        return f"{_signal(published)} was published, but its trigger {signal.trigger_id} has no audit record"
    if entry.record.outcome is not Outcome.PUBLISHED:
        if signal.signal_id in signals.cancels:
            return None
        return f"{_trigger(entry)}: its outcome is {_ended(entry.record)}, but {_signal(published)} was published and not cancelled"
    different = "; ".join(_differences(entry.record, signal))
    return f"{_trigger(entry)}: {_signal(published)} differs: {different}" if different else None


def signals_of(entries: Iterable[AuditEntry], signals: PublishedSignals) -> list[bytes]:
    """Return the bytes of the signals, and their cancels, that these audit records must agree with, for an export."""
    ids = {entry.record.signal_id for entry in entries}
    kept = [signal_id for signal_id in signals.by_id if signal_id in ids or signal_id not in signals.unsettled]
    return [signals.by_id[one].value for one in kept] + [signals.cancels[one] for one in kept if one in signals.cancels]


def _differences(record: AuditRecord, signal: Signal) -> Iterator[str]:
    for name in ("signal_id", *_COMPARED):
        audited, published = getattr(record, name), getattr(signal, name)
        if audited is not None and audited != published:
            yield f"{name} is {published} in the signal and {audited} in the audit"


def _ended(record: AuditRecord) -> str:
    return record.outcome.value if record.reason is None else f"{record.outcome.value} ({record.reason})"


def _trigger(entry: AuditEntry) -> str:
    record = entry.record
    return f"{entry.where}: {record.symbol} {record.interval} {record.mode}, trigger {record.trigger_id}"


def _signal(published: PublishedSignal) -> str:
    return f"signal {published.signal.signal_id} ({published.where}, {published.signal.action.value})"
