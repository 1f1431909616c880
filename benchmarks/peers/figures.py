"""What the comparison counts of a phase, and what is aimed at: the worker beside the best peer of each phase."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from benchmarks.harness import Target, percentile
from benchmarks.peers.catalogue import BARE, OURS
from benchmarks.peers.plan import BACKLOG, COLD, COLD_RUSH, KILL, PHASES, VALIDITY_MS, WARM, WARM_RUSH
from benchmarks.peers.site import Out, Sent
from schemas import AuditRecord, Outcome

Row = dict[str, Any]

_LOAD: Final = {COLD: 1.0, WARM: 1.0, WARM_RUSH: 0.8, COLD_RUSH: 1.0}
"""An age of at most so much of the best peer's."""
_IN_VAIN_PERCENT: Final = 2.0
_OF_BARE: Final = 0.8
_NEVER: Final = 999.0
"""Stands for an age or a time that the worker has none of, though a peer has."""


def answers(sent: Sequence[Sent], out: Sequence[Out], ended_ms: int) -> Row:
    """Return how many signals there were while bars were appended, how old, and what the engine had cached."""
    seconds = (ended_ms - sent[0].record_ms) / 1000
    while_played = [one for one in out if one.signal_ms <= ended_ms]
    ages_s = [one.age_ms / 1000 for one in out]
    prompt_tokens = sum(one.prompt_tokens for one in out)
    return {
        "bars": len(sent),
        "decisions/s": round(len(while_played) / seconds, 1),
        "on time": len({one.bar for one in out if one.age_ms <= VALIDITY_MS}),
        "late": sum(one.age_ms > VALIDITY_MS for one in out),
        "age p50 s": round(percentile(ages_s, 0.5), 3) if out else None,
        "age p95 s": round(percentile(ages_s, 0.95), 3) if out else None,
        "cached": round(sum(one.cached_tokens for one in out) / max(1, prompt_tokens), 3),
        "tokens a prompt": round(prompt_tokens / max(1, len(out))),
    }


def in_vain(audits: Sequence[AuditRecord], out: Sequence[Out]) -> Row:
    """Return what was asked too late, and what the audit says of bars without a signal; peers have no audit."""
    if not audits:
        return {"asked in vain %": round(100 * sum(one.age_ms > VALIDITY_MS for one in out) / max(1, len(out)), 1)}
    asked = [one for one in audits if one.prompt_tokens is not None]
    lost = [one for one in asked if one.outcome is not Outcome.PUBLISHED]
    reasons = Counter(f"{one.outcome.value} {one.reason}" for one in audits if one.outcome is not Outcome.PUBLISHED)
    return {
        "asked in vain %": round(100 * len(lost) / max(1, len(asked)), 1),
        "unanswered": ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items())) or "none",
    }


def targets(rows: Sequence[Row]) -> list[Target]:
    """Return what is aimed at in each phase that the worker and a peer have a row of."""
    found: list[Target] = []
    for phase in PHASES:
        mine = next((row for row in rows if row["phase"] == phase and row["worker"] == OURS), None)
        others = [row for row in rows if row["phase"] == phase and row["worker"] not in {OURS, BARE.name}]
        if mine is None or not others:
            continue
        if phase in _LOAD:
            found += _under_load(phase, mine, others)
        elif phase == KILL:
            found += _beside(phase, "lost", mine, others)
            found += _beside(phase, "twice", mine, others)
            found += _beside(phase, "first timely s", mine, others, unit="s")
    records = {row["worker"]: row["records/s"] for row in rows if row["phase"] == BACKLOG}
    if records.get(OURS) and records.get(BARE.name):
        share = round(records[OURS] / records[BARE.name], 3)
        found.append(Target(f"{BACKLOG}: records/s over those of {BARE.name}", _OF_BARE, at_least=True, got=share))
    return found


def _under_load(phase: str, mine: Row, others: Sequence[Row]) -> list[Target]:
    return [
        *_beside(phase, "on time", mine, others, at_least=True, unit="signals"),
        *_beside(phase, "age p50 s", mine, others, share=_LOAD[phase], unit="s"),
        *_beside(phase, "age p95 s", mine, others, share=_LOAD[phase], unit="s"),
        *_beside(phase, "cached", mine, others, at_least=True),
        Target(f"{phase}: asked in vain", _IN_VAIN_PERCENT, at_least=False, got=mine["asked in vain %"], unit="%"),
    ]


def _beside(
    phase: str, column: str, mine: Row, others: Sequence[Row], *, at_least: bool = False, share: float = 1.0, unit: str = ""
) -> list[Target]:
    """Return the target of one column: the best peer's figure, times `share`."""
    having = [row for row in others if row[column] is not None]
    if not having:
        return []
    best = (max if at_least else min)(having, key=lambda row: float(row[column]))
    got = (0.0 if at_least else _NEVER) if mine[column] is None else mine[column]
    what = f"{phase}: {column.removesuffix(' s')}, beside {best[column]} of {best['worker']}"
    return [Target(what, round(share * best[column], 3), at_least=at_least, got=got, unit=unit)]
