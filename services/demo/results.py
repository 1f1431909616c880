"""The results of an act: what the signals and audit topics hold, read as any consumer would, and figures over it."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Final
from uuid import UUID

from schemas import LATENCY_STAGES, AuditRecord, Cancel, Outcome, RunMode, Signal, Topic, decode_signal_message, live_name, topic_name
from services.core.bus import Bus, Record
from services.core.bus.topic_reader import partitions_of, poll_until
from services.core.percentile import percentile
from services.demo.plan import Phase, Plan
from services.fusion.prompt.prewarm import WarmCount

PERCENTILES: Final = (50, 90, 95, 99)
VISION_STATES: Final = ("fresh", "stale", "absent")
_POLL_MS: Final = 100
_NONE_AHEAD: Final = WarmCount()


class Results:
    """Signals, cancels and audit records, in any order. One that is delivered again counts once, by `signal_id` or `trigger_id`."""

    def __init__(self, plan: Plan, on_audit: Callable[[Results, AuditRecord], None] = lambda *_: None) -> None:
        """Sort by the phases of `plan`; `on_audit` is called once for each trigger, after its signal was added."""
        self._plan = plan
        self._on_audit = on_audit
        self._waiting: list[AuditRecord] = []
        """Audit records whose signal has not been read yet: the two topics have no common order."""
        self.audits: dict[UUID, AuditRecord] = {}
        self.signals: dict[UUID, Signal] = {}
        self.cancels: list[Cancel] = []
        self.contradictions = 0
        """Audit records that give a trigger a second, different outcome."""
        self.lines: dict[Topic, list[bytes]] = defaultdict(list)
        """The records as they were read."""

    async def follow(self, bus: Bus, run_mode: RunMode, opened: asyncio.Event, ended: asyncio.Event) -> None:
        """Set `opened` at the present end of both topics, then add what they gain until `ended` is set; raise BusError."""
        topics = (topic_name(topic, run_mode) for topic in (Topic.STRATEGY_SIGNALS, Topic.SIGNAL_AUDIT))
        partitions = [partition for topic in topics for partition in await partitions_of(bus, topic)]
        reader = await bus.reader(client_id="aquiline-demo-results")
        await reader.read(await reader.end_offsets(partitions))
        opened.set()
        while not ended.is_set():
            self._add_records(await reader.poll(timeout_ms=_POLL_MS))
            # The in-process bus does not yield while a poll finds records.
            await asyncio.sleep(0)
        async for records in poll_until(reader, await reader.end_offsets(partitions)):
            self._add_records(records)
        await reader.close()

    def _add_records(self, records: Sequence[Record]) -> None:
        for record in records:
            topic, value = Topic(live_name(record.topic)), record.value or b""
            self.lines[topic].append(value)
            self.add(AuditRecord.decode(value) if topic is Topic.SIGNAL_AUDIT else decode_signal_message(value))

    def add(self, message: Signal | Cancel | AuditRecord) -> None:
        """Add a message; the first body of an id counts."""
        if isinstance(message, Cancel):
            self.cancels.append(message)
        elif isinstance(message, Signal):
            self.signals.setdefault(message.signal_id, message)
        elif (first := self.audits.get(message.trigger_id)) is not None:
            self.contradictions += first.outcome is not message.outcome
        else:
            self.audits[message.trigger_id] = message
            self._waiting.append(message)
        for audit in [one for one in self._waiting if one.signal_id is None or one.signal_id in self.signals]:
            self._waiting.remove(audit)
            self._on_audit(self, audit)

    def phase_of(self, audit: AuditRecord) -> Phase:
        """Return the phase in which the trigger's bar closed."""
        return self._plan.phase_at(audit.trigger.ts_event_ms)

    def of(self, phase: Phase | None) -> list[AuditRecord]:
        """Return the audit records of one phase; None gives those of all."""
        return [audit for audit in self.audits.values() if phase is None or self.phase_of(audit) is phase]

    def outcomes(self, phase: Phase | None = None) -> Counter[Outcome]:
        """Return how many triggers ended in each outcome."""
        return Counter(audit.outcome for audit in self.of(phase))

    def published(self, phase: Phase | None = None) -> list[AuditRecord]:
        """Return the audit records of published signals."""
        return [audit for audit in self.of(phase) if audit.outcome is Outcome.PUBLISHED]

    def calls(self, phase: Phase | None = None) -> list[AuditRecord]:
        """Return the audit records of triggers that reached the engine, whatever their outcome."""
        return [audit for audit in self.of(phase) if audit.cached_tokens is not None]


def latencies(audits: Sequence[AuditRecord]) -> dict[str, dict[str, float]]:
    """Return percentiles and maximum by stage in milliseconds, `total` first; empty without audits."""
    columns = {"total": [audit.total_ms for audit in audits]}
    columns |= {stage: [audit.latency_ms[stage] for audit in audits if stage in audit.latency_ms] for stage in LATENCY_STAGES}
    return {
        stage: {**{f"p{percent}": round(percentile(values, percent / 100), 2) for percent in PERCENTILES}, "max": round(max(values), 2)}
        for stage, values in columns.items()
        if values
    }


def hit_ratio(audits: Sequence[AuditRecord], ahead: WarmCount = _NONE_AHEAD) -> float | None:
    """Return cached over prompt tokens of the calls behind `audits` plus those sent `ahead`; None without any."""
    prompt = ahead.prompt_tokens + sum(audit.prompt_tokens or 0 for audit in audits)
    cached = ahead.cached_tokens + sum(audit.cached_tokens or 0 for audit in audits)
    return cached / prompt if prompt else None
