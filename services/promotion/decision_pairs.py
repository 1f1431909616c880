"""Who decided what on the same record: ends of both sides, joined by symbol, interval, mode and as-of. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from schemas import Outcome, SignalOutcome
from services.promotion.audit_summary import AuditSummary, DecisionPoint, TriggerOrigin


@dataclass(frozen=True, slots=True)
class SideRecords:
    """What one side left behind: how its triggers ended, and what the market made of its signals by signal id."""

    ends: Sequence[AuditSummary]
    scored: Mapping[UUID, SignalOutcome] = field(default_factory=dict)


class Pair(NamedTuple):
    """One moment on both sides."""

    live: AuditSummary
    shadow: AuditSummary

    @property
    def decided(self) -> bool:
        """Return whether both sides published a signal."""
        return self.live.outcome is Outcome.PUBLISHED and self.shadow.outcome is Outcome.PUBLISHED

    @property
    def same_vision(self) -> bool:
        """Return whether both rest on the same vision record, or on none."""
        return self.live.vision == self.shadow.vision


def newest_version(ends: Sequence[AuditSummary]) -> str:
    """Return the configuration version of the newest one: what runs there now."""
    return max(ends, key=lambda end: end.ts_done_ms).config_version


def distinct(ends: Iterable[AuditSummary], version: str, symbols: Collection[str]) -> list[AuditSummary]:
    """Return the first end of each trigger, of one configuration version, of `symbols` (of all when empty)."""
    found: dict[TriggerOrigin, AuditSummary] = {}
    for end in ends:
        if end.config_version == version and (not symbols or end.symbol in symbols):
            found.setdefault(end.origin, end)
    return list(found.values())


def span(live: Sequence[AuditSummary], shadow: Sequence[AuditSummary]) -> tuple[int, int]:
    """Return from when to when both sides had triggers, in append times of the triggering records; empty where they never met."""
    sides = [[end.ts_ms for end in side] for side in (live, shadow)]
    return max(min(side) for side in sides), min(max(side) for side in sides)


def within(ends: Iterable[AuditSummary], from_ms: int, until_ms: int) -> list[AuditSummary]:
    """Return those whose trigger lies in the span."""
    return [end for end in ends if from_ms <= end.ts_ms <= until_ms]


def covered(live: Sequence[AuditSummary], shadow: Sequence[AuditSummary]) -> float:
    """Return the share of live's triggers, by the record that made them, that the shadow had too."""
    had = {end.origin for end in shadow}
    return sum(end.origin in had for end in live) / len(live) if live else 0.0


def pairs(live: Iterable[AuditSummary], shadow: Iterable[AuditSummary]) -> list[Pair]:
    """Return the moments that both sides looked at, in order of time; triggers that never had their turn rest on nothing."""
    theirs: dict[DecisionPoint, AuditSummary] = {}
    for end in shadow:
        if end.moment is not None:
            theirs.setdefault(end.moment, end)
    ours: dict[DecisionPoint, AuditSummary] = {}
    for end in live:
        if end.moment is not None and end.moment in theirs:
            ours.setdefault(end.moment, end)
    found = [Pair(end, theirs[moment]) for moment, end in ours.items()]
    return sorted(found, key=lambda pair: pair.live.ts_event_ms)


def matrix(found: Iterable[Pair]) -> dict[str, dict[str, int]]:
    """Return how often live did the one and the shadow the other."""
    counts = Counter((pair.live.label, pair.shadow.label) for pair in found)
    rows: dict[str, dict[str, int]] = {}
    for (live, shadow), count in sorted(counts.items()):
        rows.setdefault(live, {})[shadow] = count
    return rows
