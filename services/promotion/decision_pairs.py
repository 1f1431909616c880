"""Matches the decisions of both sides by symbol, interval, mode and market record. Pure."""

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
    """One side's audit summaries, and the outcomes and horizons of its signals by signal id."""

    summaries: Sequence[AuditSummary]
    scored: Mapping[UUID, SignalOutcome] = field(default_factory=dict)
    horizons_ms: Mapping[UUID, int] = field(default_factory=dict)
    """When the view of each signal to buy or sell ends, in market time."""


class Pair(NamedTuple):
    """The decisions of both sides on one record."""

    live: AuditSummary
    shadow: AuditSummary

    @property
    def decided(self) -> bool:
        """Return whether both sides published a signal."""
        return self.live.outcome is Outcome.PUBLISHED and self.shadow.outcome is Outcome.PUBLISHED

    @property
    def same_vision(self) -> bool:
        """Return whether both used the same vision record, or none."""
        return self.live.vision == self.shadow.vision


def newest_version(summaries: Sequence[AuditSummary]) -> str:
    """Return the configuration version of the newest audit record."""
    return max(summaries, key=lambda one: one.ts_done_ms).config_version


def distinct(summaries: Iterable[AuditSummary], version: str, symbols: Collection[str]) -> list[AuditSummary]:
    """Return the first summary of each trigger, of one configuration version and of `symbols` (all when empty)."""
    found: dict[TriggerOrigin, AuditSummary] = {}
    for one in summaries:
        if one.config_version == version and (not symbols or one.symbol in symbols):
            found.setdefault(one.origin, one)
    return list(found.values())


def span(live: Sequence[AuditSummary], shadow: Sequence[AuditSummary]) -> tuple[int, int]:
    """Return the span in which both sides had triggers, in append times of the triggering records; negative without overlap."""
    sides = [[one.ts_ms for one in side] for side in (live, shadow)]
    return max(min(side) for side in sides), min(max(side) for side in sides)


def within(summaries: Iterable[AuditSummary], from_ms: int, until_ms: int) -> list[AuditSummary]:
    """Return the summaries whose trigger lies in the span."""
    return [one for one in summaries if from_ms <= one.ts_ms <= until_ms]


def covered(live: Sequence[AuditSummary], shadow: Sequence[AuditSummary]) -> float:
    """Return the share of live's triggers that the shadow also had, by the record that made them."""
    had = {one.origin for one in shadow}
    return sum(one.origin in had for one in live) / len(live) if live else 0.0


def pairs(live: Iterable[AuditSummary], shadow: Iterable[AuditSummary]) -> list[Pair]:
    """Return the pairs in order of event time; triggers that ended before their turn make none."""
    theirs: dict[DecisionPoint, AuditSummary] = {}
    for one in shadow:
        if one.moment is not None:
            theirs.setdefault(one.moment, one)
    ours: dict[DecisionPoint, AuditSummary] = {}
    for one in live:
        if one.moment is not None and one.moment in theirs:
            ours.setdefault(one.moment, one)
    found = [Pair(one, theirs[moment]) for moment, one in ours.items()]
    return sorted(found, key=lambda pair: pair.live.ts_event_ms)


def matrix(found: Iterable[Pair]) -> dict[str, dict[str, int]]:
    """Return the count of pairs by live's label and the shadow's."""
    counts = Counter((pair.live.label, pair.shadow.label) for pair in found)
    rows: dict[str, dict[str, int]] = {}
    for (live, shadow), count in sorted(counts.items()):
        rows.setdefault(live, {})[shadow] = count
    return rows
