"""The run's results, counted from the signals and audit topics: outcomes, latencies, prefix hits. Pure.

Everything is distinct by `trigger_id` and `signal_id`, so that a redelivered record counts once.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final
from uuid import UUID

from schemas import LATENCY_STAGES, AuditRecord, Cancel, Outcome, Signal
from services.demo.plan import Phase, Plan

"""The parts of a decision's latency, in the order in which a trigger passes them."""
PERCENTILES: Final = (50, 90, 95, 99)


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


def total_ms(audit: AuditRecord) -> float:
    """Return the milliseconds from the record's timestamp to the signal's acknowledgement."""
    return sum(audit.latency_ms.get(stage, 0.0) for stage in LATENCY_STAGES)


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the nearest-rank percentile of `values`, which must not be empty."""
    return sorted(values)[max(0, math.ceil(percent / 100 * len(values)) - 1)]


def latencies(audits: Sequence[AuditRecord]) -> dict[str, dict[str, float]]:
    """Return percentiles and maximum by stage in milliseconds, `total` first; empty without audits."""
    columns = {"total": [total_ms(audit) for audit in audits]}
    columns |= {stage: [audit.latency_ms[stage] for audit in audits if stage in audit.latency_ms] for stage in LATENCY_STAGES}
    return {
        stage: {**{f"p{percent}": round(percentile(values, percent), 2) for percent in PERCENTILES}, "max": round(max(values), 2)}
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
