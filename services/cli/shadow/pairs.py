"""Who decided what on the same record: audit records of both sides, joined by symbol, interval, mode and as-of. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from schemas import AuditRecord, Outcome, SignalOutcome

Moment = tuple[str, str, str, int, int]
"""Symbol, interval, mode, and partition and offset of the last market record that a decision rests on."""


@dataclass(frozen=True, slots=True)
class Trail:
    """What one side left behind: its audit records, and what the market made of its signals by signal id."""

    audits: Sequence[AuditRecord]
    scored: Mapping[UUID, SignalOutcome] = field(default_factory=dict)


class Pair(NamedTuple):
    """One moment on both sides."""

    live: AuditRecord
    shadow: AuditRecord

    @property
    def decided(self) -> bool:
        """Return whether both sides published a signal."""
        return self.live.outcome is Outcome.PUBLISHED and self.shadow.outcome is Outcome.PUBLISHED

    @property
    def same_vision(self) -> bool:
        """Return whether both rest on the same vision record, or on none."""
        return _vision(self.live) == _vision(self.shadow)


def newest_version(audits: Sequence[AuditRecord]) -> str:
    """Return the configuration version of the newest record: what runs there now."""
    return max(audits, key=lambda audit: audit.ts_done_ms).config_version


def distinct(audits: Iterable[AuditRecord], version: str, symbols: Collection[str]) -> list[AuditRecord]:
    """Return the first record of each trigger, of one configuration version, of `symbols` (of all when empty)."""
    found: dict[UUID, AuditRecord] = {}
    for audit in audits:
        if audit.config_version == version and (not symbols or audit.symbol in symbols):
            found.setdefault(audit.trigger_id, audit)
    return list(found.values())


def span(live: Sequence[AuditRecord], shadow: Sequence[AuditRecord]) -> tuple[int, int]:
    """Return from when to when both sides had triggers, in append times of the triggering records; empty where they never met."""
    sides = [[audit.trigger.ts_ms for audit in side] for side in (live, shadow)]
    return max(min(side) for side in sides), min(max(side) for side in sides)


def within(audits: Iterable[AuditRecord], from_ms: int, until_ms: int) -> list[AuditRecord]:
    """Return the records whose trigger lies in the span."""
    return [audit for audit in audits if from_ms <= audit.trigger.ts_ms <= until_ms]


def covered(live: Sequence[AuditRecord], shadow: Sequence[AuditRecord]) -> float:
    """Return the share of live's triggers, by the record that made them, that the shadow had too."""
    had = {_origin(audit) for audit in shadow}
    return sum(_origin(audit) in had for audit in live) / len(live) if live else 0.0


def pairs(live: Iterable[AuditRecord], shadow: Iterable[AuditRecord]) -> list[Pair]:
    """Return the moments that both sides looked at, in order of time; triggers that never had their turn rest on nothing."""
    theirs: dict[Moment, AuditRecord] = {}
    for audit in shadow:
        if (at := moment(audit)) is not None:
            theirs.setdefault(at, audit)
    ours: dict[Moment, AuditRecord] = {}
    for audit in live:
        if (at := moment(audit)) is not None and at in theirs:
            ours.setdefault(at, audit)
    found = [Pair(audit, theirs[at]) for at, audit in ours.items()]
    return sorted(found, key=lambda pair: pair.live.trigger.ts_event_ms)


def moment(audit: AuditRecord) -> Moment | None:
    """Return what a decision was about, None when there was none."""
    if audit.as_of is None:
        return None
    market = audit.as_of.market
    return audit.symbol, audit.interval, audit.mode, market.partition, market.offset


def label(audit: AuditRecord) -> str:
    """Return what a side did at a moment: the action that it published, or the outcome instead."""
    return audit.action.value if audit.outcome is Outcome.PUBLISHED and audit.action is not None else audit.outcome.value


def matrix(found: Iterable[Pair]) -> dict[str, dict[str, int]]:
    """Return how often live did the one and the shadow the other."""
    counts = Counter((label(pair.live), label(pair.shadow)) for pair in found)
    rows: dict[str, dict[str, int]] = {}
    for (live, shadow), count in sorted(counts.items()):
        rows.setdefault(live, {})[shadow] = count
    return rows


def _origin(audit: AuditRecord) -> tuple[str, int, int, str, str]:
    return audit.trigger.topic, audit.trigger.partition, audit.trigger.offset, audit.trigger_kind, audit.mode


def _vision(audit: AuditRecord) -> tuple[int, int] | None:
    seen = audit.as_of.vision if audit.as_of is not None else None
    return None if seen is None else (seen.partition, seen.offset)
