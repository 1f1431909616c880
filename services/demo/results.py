"""The run's results: what signals and audit topics hold, read as any consumer would, with outcomes, latencies and prefix hits.

Everything is distinct by `trigger_id` and `signal_id`, so that a redelivered record counts once.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final
from uuid import UUID

from schemas import LATENCY_STAGES, AuditRecord, Cancel, Outcome, RunMode, Signal, Topic, decode_signal_message, topic_name
from services.core.bus import Bus, Reader, Record
from services.core.bus.topic_reader import partitions_of
from services.core.percentile import percentile
from services.demo.plan import Phase, Plan

PERCENTILES: Final = (50, 90, 95, 99)
_POLL_MS: Final = 100


class Results:
    """Takes signals, cancels and audit records in any order."""

    def __init__(self, plan: Plan) -> None:
        """Count by the phases of `plan`."""
        self._plan = plan
        self.audits: dict[UUID, AuditRecord] = {}
        self.signals: dict[UUID, Signal] = {}
        self.cancels: list[Cancel] = []
        self.outcomes: Counter[Outcome] = Counter()
        self.by_phase: dict[Phase, Counter[Outcome]] = {one.phase: Counter() for one in plan.phases}
        self.reasons: Counter[tuple[Outcome, str]] = Counter()
        self.contradictions = 0
        """Audit records that give a trigger a second, different outcome."""

    def add_message(self, message: Signal | Cancel) -> None:
        """Add a record of the signals topic; the first body of an id counts."""
        if isinstance(message, Cancel):
            self.cancels.append(message)
        else:
            self.signals.setdefault(message.signal_id, message)

    def add_audit(self, audit: AuditRecord) -> bool:
        """Add a record of the audit topic; return True when it is the first of its trigger."""
        if (first := self.audits.get(audit.trigger_id)) is not None:
            self.contradictions += first.outcome is not audit.outcome
            return False
        self.audits[audit.trigger_id] = audit
        self.outcomes[audit.outcome] += 1
        self.by_phase[self.phase_of(audit)][audit.outcome] += 1
        if audit.reason is not None:
            self.reasons[audit.outcome, audit.reason] += 1
        return True

    def phase_of(self, audit: AuditRecord) -> Phase:
        """Return the phase in which the trigger's bar closed."""
        return self._plan.phase_at(audit.trigger.ts_event_ms)

    def signal_of(self, audit: AuditRecord) -> Signal | None:
        """Return the signal of a decision, None without one or before it was read."""
        return None if audit.signal_id is None else self.signals.get(audit.signal_id)

    def published(self, phase: Phase | None = None) -> list[AuditRecord]:
        """Return the audit records of published signals, of one phase or of all."""
        return [audit for audit in self._of(phase) if audit.outcome is Outcome.PUBLISHED]

    def calls(self, phase: Phase | None = None) -> list[AuditRecord]:
        """Return the audit records of triggers that reached the engine, whatever their outcome."""
        return [audit for audit in self._of(phase) if audit.cached_tokens is not None]

    def _of(self, phase: Phase | None) -> list[AuditRecord]:
        return [audit for audit in self.audits.values() if phase is None or self.phase_of(audit) is phase]


class Follower:
    """Adds what both topics gain to `results`, and calls `on_audit` once for each trigger, after its signal was read."""

    def __init__(self, results: Results, on_audit: Callable[[AuditRecord], None]) -> None:
        """Read nothing yet."""
        self._results = results
        self._on_audit = on_audit
        self._waiting: list[AuditRecord] = []
        """Audit records whose signal has not been read yet: the two topics have no common order."""
        self.signal_lines: list[bytes] = []
        self.audit_lines: list[bytes] = []
        self._reader: Reader

    async def open(self, bus: Bus, run_mode: RunMode) -> None:
        """Start at the present end of both topics; raise BusError."""
        self._signals = topic_name(Topic.STRATEGY_SIGNALS, run_mode)
        topics = (self._signals, topic_name(Topic.SIGNAL_AUDIT, run_mode))
        self._partitions = [partition for topic in topics for partition in await partitions_of(bus, topic)]
        self._reader = await bus.reader(client_id="aquiline-demo-follower")
        await self._reader.read(await self._reader.end_offsets(self._partitions))

    async def follow(self) -> None:
        """Read on until cancelled."""
        while True:
            self._add(await self._reader.poll(timeout_ms=_POLL_MS))
            # The in-process bus does not yield while a poll finds records.
            await asyncio.sleep(0)

    async def finish(self) -> None:
        """Read to the present end of both topics, and close."""
        ends = await self._reader.end_offsets(self._partitions)
        while any(self._reader.position(partition) < end for partition, end in ends.items()):
            self._add(await self._reader.poll(timeout_ms=_POLL_MS))
        await self._reader.close()

    def _add(self, records: Sequence[Record]) -> None:
        for record in records:
            value = record.value or b""
            if record.topic == self._signals:
                self._results.add_message(decode_signal_message(value))
                self.signal_lines.append(value)
            else:
                audit = AuditRecord.decode(value)
                self.audit_lines.append(value)
                if self._results.add_audit(audit):
                    self._waiting.append(audit)
        for audit in [one for one in self._waiting if one.signal_id is None or self._results.signal_of(one) is not None]:
            self._waiting.remove(audit)
            self._on_audit(audit)


def total_ms(audit: AuditRecord) -> float:
    """Return the milliseconds from the record's timestamp to the signal's acknowledgement."""
    return sum(audit.latency_ms.get(stage, 0.0) for stage in LATENCY_STAGES)


def latencies(audits: Sequence[AuditRecord]) -> dict[str, dict[str, float]]:
    """Return percentiles and maximum by stage in milliseconds, `total` first; empty without audits."""
    columns = {"total": [total_ms(audit) for audit in audits]}
    columns |= {stage: [audit.latency_ms[stage] for audit in audits if stage in audit.latency_ms] for stage in LATENCY_STAGES}
    return {
        stage: {**{f"p{percent}": round(percentile(values, percent / 100), 2) for percent in PERCENTILES}, "max": round(max(values), 2)}
        for stage, values in columns.items()
        if values
    }


def hit_ratio(audits: Iterable[AuditRecord], warm_prompt: int = 0, warm_cached: int = 0) -> float | None:
    """Return cached over prompt tokens of the calls behind `audits` plus those sent ahead; None without any."""
    prompt, cached = warm_prompt, warm_cached
    for audit in audits:
        prompt += audit.prompt_tokens or 0
        cached += audit.cached_tokens or 0
    return cached / prompt if prompt else None
