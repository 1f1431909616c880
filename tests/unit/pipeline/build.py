"""Audit records and signals for tests of what workers publish."""

from __future__ import annotations

from uuid import UUID, uuid4

from schemas import AuditRecord, Outcome, Signal
from schemas.examples import EXAMPLES


def audit(outcome: Outcome = Outcome.PUBLISHED, **changes: object) -> AuditRecord:
    """Return the audit record of a trigger of its own."""
    example = EXAMPLES[AuditRecord]
    assert isinstance(example, AuditRecord)
    published = outcome is Outcome.PUBLISHED
    own: dict[str, object] = {"trigger_id": uuid4(), "outcome": outcome, "signal_id": uuid4() if published else None, "reason": None}
    return example.model_copy(update=own | changes)


def signal(signal_id: UUID | None, **changes: object) -> Signal:
    """Return a signal."""
    example = EXAMPLES[Signal]
    assert isinstance(example, Signal)
    return example.model_copy(update={"signal_id": signal_id, **changes})
