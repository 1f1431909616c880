"""Compares the decisions of live and shadow: coverage, agreement, latency, outcomes, prefix hits, returns, and the verdict. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas import LATENCY_STAGES, Outcome
from services.promotion.audit_summary import AuditSummary
from services.promotion.comparison_result import Check, Comparison, Returns, Side, Spread
from services.promotion.decision_pairs import SideRecords, covered, distinct, matrix, newest_version, pairs, span, within
from services.promotion.paired_returns import paired_returns

_TO_DECISION: Final = LATENCY_STAGES.index("decision") + 1
_TOP_REASONS: Final = 5
_SLACK_MS: Final = 50.0
"""A latency within this much of live's counts as equal, as a ratio of two small figures says nothing."""
_MINUTE_MS: Final = 60_000


class NothingToCompareError(Exception):
    """There is nothing to compare; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a side's settings file leads to: the hash of its decision settings, and its workers' configuration version."""

    settings_hash: str
    config_version: str | None
    """None where the file's tokenizer is not on this machine."""
    prompt_version: str
    """This release's: the configuration version of another release cannot be computed here."""


@dataclass(frozen=True, slots=True)
class Criteria:
    """The thresholds that a candidate has to meet."""

    min_pairs: int = 200
    min_span_ms: int = 60 * _MINUTE_MS
    min_coverage: float = 0.95
    min_agreement: float = 0.0
    max_slower: float = 1.25
    max_lost: float = 0.01
    max_hits_lost: float = 0.05
    min_matured: int = 100
    """Pairs in which a side wanted a position and whose horizon is over."""
    min_scored: float = 0.99
    """Share of them that have outcomes on both sides."""
    margin_bps: float = 5.0
    """What a pair may make less than live's, at most, at the low end of the interval."""


def compare(
    sides: tuple[SideRecords, SideRecords], expected: tuple[Expected, Expected], symbols: Collection[str], criteria: Criteria, now_ms: int
) -> Comparison:
    """Return the comparison of both sides; raise NothingToCompareError.

    `sides` and `expected` are live's and the shadow's; `symbols` are the shadow's, all when empty. Only the
    newest configuration version of each side counts, and only the span in which both had triggers.
    """
    live, shadow = sides
    kept, versions = [], []
    for name, trail in (("live", live), ("shadow", shadow)):
        if not trail.summaries:
            raise NothingToCompareError(f"{name} has no audit record in this time; check that its worker runs and reads")
        versions.append(newest_version(trail.summaries))
        kept.append(distinct(trail.summaries, versions[-1], symbols))
        if not kept[-1]:
            raise NothingToCompareError(f"{name} has no audit record of the shadow's symbols ({', '.join(symbols)})")
    from_ms, until_ms = span(*kept)
    if until_ms < from_ms:
        raise NothingToCompareError("live and shadow never had triggers at the same time")
    ours, theirs = (within(side, from_ms, until_ms) for side in kept)
    found = pairs(ours, theirs)
    decided = [pair for pair in found if pair.decided]
    comparison = Comparison(
        made_ms=now_ms,
        from_ms=from_ms,
        until_ms=until_ms,
        live=_side(ours, live, versions[0], expected[0]),
        shadow=_side(theirs, shadow, versions[1], expected[1]),
        coverage=covered(ours, theirs),
        pairs=len(found),
        decided=len(decided),
        same_vision=_share(pair.same_vision for pair in found),
        actions=matrix(found),
        agreement=_share(pair.live.action is pair.shadow.action for pair in decided),
        returns=paired_returns(decided, live, shadow),
        checks=[Check(name="none", wanted="", got="", passed=True)],
    )
    return comparison.model_copy(update={"checks": list(verdict(comparison, criteria))})


def verdict(found: Comparison, criteria: Criteria) -> Iterable[Check]:
    """Yield each criterion with its threshold and the value found."""
    live, shadow = found.live, found.shadow

    def check(name: str, wanted: str, got: str, passed: bool) -> Check:  # noqa: FBT001 - the verdict
        return Check(name=name, wanted=wanted, got=got, passed=passed)

    for name, side in (("live", live), ("shadow", shadow)):
        answer = {True: "yes", False: f"no, it has configuration {side.config_version}", None: "not checked here"}
        yield check(f"{name} runs its settings file", "yes", answer[side.of_its_file], side.of_its_file is not False)
    yield check("source of the shadow's answers", "no simulator", ", ".join(shadow.sources) or "nothing", "simulator" not in shadow.sources)
    yield check("decided pairs", f"at least {criteria.min_pairs}", str(found.decided), found.decided >= criteria.min_pairs)
    minutes = (found.until_ms - found.from_ms) / _MINUTE_MS
    least = criteria.min_span_ms / _MINUTE_MS
    yield check("span", f"at least {least:g} min", f"{minutes:.1f} min", minutes >= least)
    yield check("coverage", f"at least {criteria.min_coverage:.0%}", f"{found.coverage:.1%}", found.coverage >= criteria.min_coverage)
    if criteria.min_agreement:
        got = found.agreement or 0.0
        yield check("agreement", f"at least {criteria.min_agreement:.0%}", f"{got:.1%}", got >= criteria.min_agreement)
    if (theirs := shadow.latency_ms.get("record_to_decision")) and (ours := live.latency_ms.get("record_to_decision")):
        most = max(ours.p95 * criteria.max_slower, ours.p95 + _SLACK_MS)
        yield check("p95, record to decision", f"at most {most:.0f} ms", f"{theirs.p95:.0f} ms", theirs.p95 <= most)
    lost, most_lost = shadow.share("stale", "failed"), live.share("stale", "failed") + criteria.max_lost
    yield check("stale or failed", f"at most {most_lost:.2%}", f"{lost:.2%}", lost <= most_lost)
    if live.prefix_hits is not None and shadow.prefix_hits is not None:
        least_hits = max(0.0, live.prefix_hits - criteria.max_hits_lost)
        yield check("prefix hits", f"at least {least_hits:.1%}", f"{shadow.prefix_hits:.1%}", shadow.prefix_hits >= least_hits)
    yield from _of_returns(found.returns, criteria)


def _of_returns(found: Returns | None, criteria: Criteria) -> Iterable[Check]:
    """Yield the criteria of returns. A candidate that was not scored meets none of them: nobody knows what it would have made."""
    matured = 0 if found is None else found.matured
    yield Check(
        name="outcomes",
        wanted="both sides",
        got="not on both sides" if found is None else "both sides",
        passed=found is not None,
    )
    yield Check(name="matured pairs", wanted=f"at least {criteria.min_matured}", got=str(matured), passed=matured >= criteria.min_matured)
    share = 0.0 if found is None or not matured else 1 - found.unscored / matured
    yield Check(
        name="scored among them", wanted=f"at least {criteria.min_scored:.0%}", got=f"{share:.1%}", passed=share >= criteria.min_scored
    )
    low = None if found is None else found.low
    got = "no interval" if low is None else f"{low * 1e4:+.1f} bp"
    passed = low is not None and low >= -criteria.margin_bps * 1e-4
    yield Check(name="returns", wanted=f"95 % interval of the difference above -{criteria.margin_bps:g} bp", got=got, passed=passed)


def _side(summaries: Sequence[AuditSummary], trail: SideRecords, version: str, expected: Expected) -> Side:
    published = [one for one in summaries if one.outcome is Outcome.PUBLISHED]
    known = [one for one in summaries if one.cached_tokens is not None and one.prompt_tokens]
    tokens = sum(one.prompt_tokens or 0 for one in known)
    accepted = [one.accept_length for one in summaries if one.accept_length is not None]
    prompts = _distinct(one.prompt_version for one in summaries)
    comparable = expected.config_version is not None and prompts in ([], [expected.prompt_version])
    return Side(
        settings_hash=expected.settings_hash,
        config_version=version,
        of_its_file=version == expected.config_version if comparable else None,
        other_versions=sum(one.config_version != version for one in trail.summaries),
        models=_distinct(one.model for one in summaries),
        sources=_distinct(one.source for one in summaries),
        prompt_versions=prompts,
        triggers=len(summaries),
        outcomes=dict(Counter(one.outcome.value for one in summaries)),
        reasons=dict(Counter(one.reason for one in summaries if one.reason).most_common(_TOP_REASONS)),
        latency_ms=_latency(published),
        prefix_hits=sum(one.cached_tokens or 0 for one in known) / tokens if tokens else None,
        accept_length=float(np.mean(accepted)) if accepted else None,
    )


def _latency(published: Sequence[AuditSummary]) -> dict[str, Spread]:
    if not published:
        return {}
    taken = np.asarray([one.latency_ms for one in published])
    found = {"record_to_decision": _spread(taken[:, :_TO_DECISION].sum(axis=1))}
    return found | {stage: _spread(taken[:, at]) for at, stage in enumerate(LATENCY_STAGES)}


def _spread(values: NDArray[np.float64]) -> Spread:
    p50, p95, p99 = (float(value) for value in np.percentile(values, (50, 95, 99)))
    return Spread(count=len(values), p50=round(p50, 3), p95=round(p95, 3), p99=round(p99, 3))


def _share(flags: Iterable[bool]) -> float | None:
    found = list(flags)
    return sum(found) / len(found) if found else None


def _distinct(values: Iterable[str | None]) -> list[str]:
    return sorted({value for value in values if value is not None})
