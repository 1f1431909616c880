"""The fields of an audit record that a comparison needs: a whole record takes 7 KB in memory, and a day may hold a million."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from schemas import LATENCY_STAGES, Action, AuditRecord, OffsetRef, Outcome


class TriggerOrigin(NamedTuple):
    """The record and rule that made a trigger; equal on both sides for the same record."""

    topic: str
    partition: int
    offset: int
    kind: str
    mode: str


class DecisionPoint(NamedTuple):
    """The basis of a decision: `partition` and `offset` are those of the last market record that it used."""

    symbol: str
    interval: str
    mode: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class AuditSummary:
    """See `schemas.AuditRecord` for what each field means."""

    origin: TriggerOrigin
    symbol: str
    ts_ms: int
    """Append time of the record that made the trigger."""
    ts_event_ms: int
    ts_done_ms: int
    outcome: Outcome
    reason: str | None
    action: Action | None
    signal_id: UUID | None
    moment: DecisionPoint | None
    """None where the trigger ended before its turn."""
    vision: tuple[int, int] | None
    config_version: str
    prompt_version: str | None
    source: str | None
    model: str | None
    prompt_tokens: int | None
    cached_tokens: int | None
    accept_length: float | None
    latency_ms: tuple[float, ...]
    """By stage, as in `schemas.LATENCY_STAGES`."""

    @classmethod
    def of(cls, audit: AuditRecord) -> AuditSummary:
        """Return the summary of an audit record; equal strings are stored once."""
        ref, symbol = audit.trigger, sys.intern(audit.symbol)
        mode, interval = sys.intern(audit.mode), sys.intern(audit.interval)
        market = audit.as_of.market if audit.as_of is not None else None
        vision = audit.as_of.vision if audit.as_of is not None else None
        return cls(
            origin=TriggerOrigin(sys.intern(ref.topic), ref.partition, ref.offset, sys.intern(audit.trigger_kind), mode),
            symbol=symbol,
            ts_ms=ref.ts_ms,
            ts_event_ms=ref.ts_event_ms,
            ts_done_ms=audit.ts_done_ms,
            outcome=audit.outcome,
            reason=_kept(audit.reason),
            action=audit.action,
            signal_id=audit.signal_id,
            moment=None if market is None else DecisionPoint(symbol, interval, mode, market.partition, market.offset),
            vision=_place(vision),
            config_version=sys.intern(audit.config_version),
            prompt_version=_kept(audit.prompt_version),
            source=_kept(audit.source),
            model=_kept(audit.model),
            prompt_tokens=audit.prompt_tokens,
            cached_tokens=audit.cached_tokens,
            accept_length=audit.accept_length,
            latency_ms=tuple([audit.latency_ms.get(stage, 0.0) for stage in LATENCY_STAGES]),
        )

    @property
    def label(self) -> str:
        """Return the published action, or else the outcome."""
        return self.action.value if self.outcome is Outcome.PUBLISHED and self.action is not None else self.outcome.value


def _place(ref: OffsetRef | None) -> tuple[int, int] | None:
    return None if ref is None else (ref.partition, ref.offset)


def _kept(value: str | None) -> str | None:
    return None if value is None else sys.intern(value)
