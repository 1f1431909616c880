"""What came of the demo, counted from the signals and audit topics: outcomes, latencies, prefix hits. Pure.

Sums are taken distinct by `trigger_id` and `signal_id`, so that a redelivery counts once.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final
from uuid import UUID

from schemas import AuditRecord, Cancel, Outcome, Signal
from services.demo.script import Phase, Script

STAGES: Final = ("fold", "vision_wait", "queue", "prompt", "first_token", "decision", "publish")
"""In the order in which a trigger goes through them."""
PERCENTILES: Final = (50, 90, 95, 99)


class Tally:
    """Takes in signals, cancels and audit records in any order."""

    def __init__(self, script: Script) -> None:
        """Count by the phases of `script`."""
        self._script = script
        self.audits: dict[UUID, AuditRecord] = {}
        self.signals: dict[UUID, Signal] = {}
        self.cancels: list[Cancel] = []
        self.outcomes: Counter[Outcome] = Counter()
        self.by_phase: dict[Phase, Counter[Outcome]] = {act.phase: Counter() for act in script.acts}
        self.reasons: Counter[tuple[Outcome, str]] = Counter()
        self.contradictions = 0
        """Audit records that give a trigger another outcome than the first one did."""

    def add_message(self, message: Signal | Cancel) -> None:
        """Take in a record of the signals topic; of an id the first body counts."""
        if isinstance(message, Cancel):
            self.cancels.append(message)
        else:
            self.signals.setdefault(message.signal_id, message)

    def add_audit(self, audit: AuditRecord) -> bool:
        """Take in a record of the audit topic; return True when it is the first of its trigger."""
        known = self.audits.get(audit.trigger_id)
        if known is not None:
            self.contradictions += known.outcome is not audit.outcome
            return False
        self.audits[audit.trigger_id] = audit
        self.outcomes[audit.outcome] += 1
        self.by_phase[self.phase_of(audit)][audit.outcome] += 1
        if audit.reason is not None:
            self.reasons[audit.outcome, audit.reason] += 1
        return True

    def phase_of(self, audit: AuditRecord) -> Phase:
        """Return the phase in which the trigger's bar closed."""
        return self._script.phase_at(audit.trigger.ts_event_ms)

    def published(self, phase: Phase | None = None) -> list[AuditRecord]:
        """Return the audit records of published signals, of one phase or of all."""
        return [
            audit
            for audit in self.audits.values()
            if audit.outcome is Outcome.PUBLISHED and (phase is None or self.phase_of(audit) is phase)
        ]

    def calls(self, phase: Phase | None = None) -> list[AuditRecord]:
        """Return the audit records of triggers that the engine took up, whatever came of them."""
        return [
            audit for audit in self.audits.values() if audit.cached_tokens is not None and (phase is None or self.phase_of(audit) is phase)
        ]


def total_ms(audit: AuditRecord) -> float:
    """Return the milliseconds from the record's timestamp to the signal's acknowledgement."""
    return sum(audit.latency_ms.get(stage, 0.0) for stage in STAGES)


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the nearest-rank percentile of `values`, which must not be empty."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def latencies(audits: Sequence[AuditRecord]) -> dict[str, dict[str, float]]:
    """Return percentiles and maximum by stage in milliseconds, `total` first; empty without audits."""
    if not audits:
        return {}
    columns = {"total": [total_ms(audit) for audit in audits]}
    columns.update({stage: [audit.latency_ms[stage] for audit in audits if stage in audit.latency_ms] for stage in STAGES})
    return {
        stage: {**{f"p{percent}": round(percentile(values, percent), 2) for percent in PERCENTILES}, "max": round(max(values), 2)}
        for stage, values in columns.items()
        if values
    }


def hit_ratio(audits: Iterable[AuditRecord], warm_prompt: int = 0, warm_cached: int = 0) -> float | None:
    """Return cached over prompt tokens of the calls behind `audits` and of what was sent ahead; None without any."""
    prompt, cached = warm_prompt, warm_cached
    for audit in audits:
        prompt += audit.prompt_tokens or 0
        cached += audit.cached_tokens or 0
    return cached / prompt if prompt else None
