"""Two trails held against each other: coverage, agreement, latency, outcomes, prefix hits, returns, and the verdict. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas import LATENCY_STAGES, Action, Outcome
from services.promotion.audit_summary import AuditSummary
from services.promotion.comparison_result import Check, Comparison, Returns, Side, Spread
from services.promotion.decision_pairs import Pair, SideRecords, covered, distinct, matrix, newest_version, pairs, span, within
from services.scoring.report.statistics import block_length, bootstrap_mean

_TO_DECISION: Final = LATENCY_STAGES.index("decision") + 1
_TOP_REASONS: Final = 5
_SEED: Final = 7
_SLACK_MS: Final = 50.0
"""A candidate within this of live's latency is not slower: between two small figures a ratio says nothing."""
_MINUTE_MS: Final = 60_000


class NothingToCompareError(Exception):
    """There is no comparison to make; the text says of what there is none."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a side's settings file says: the hash of its decision-shaping settings, and what it makes its workers call themselves."""

    settings_hash: str
    config_version: str | None
    """None where the tokenizer that it names is not here."""
    prompt_version: str
    """This installation's: another one's configuration version cannot be worked out here."""


@dataclass(frozen=True, slots=True)
class Criteria:
    """What a candidate has to reach."""

    min_pairs: int = 200
    min_span_ms: int = 60 * _MINUTE_MS
    min_coverage: float = 0.95
    min_agreement: float = 0.0
    max_slower: float = 1.25
    max_lost: float = 0.01
    max_hits_lost: float = 0.05


def compare(
    trails: tuple[SideRecords, SideRecords], expected: tuple[Expected, Expected], symbols: Collection[str], criteria: Criteria, now_ms: int
) -> Comparison:
    """Return the comparison of what both sides did; raise NothingToCompareError.

    `trails` and `expected` are live's and the shadow's; `symbols` are those that the shadow looks at, all when empty. Only the
    newest configuration version of each side counts, and only the span in which both had triggers.
    """
    live, shadow = trails
    kept, versions = [], []
    for name, trail in (("live", live), ("shadow", shadow)):
        if not trail.ends:
            raise NothingToCompareError(f"{name} left no audit record in this time; is its worker running, and reading?")
        versions.append(newest_version(trail.ends))
        kept.append(distinct(trail.ends, versions[-1], symbols))
        if not kept[-1]:
            raise NothingToCompareError(f"{name} left no audit record of the symbols that the shadow looks at ({', '.join(symbols)})")
    from_ms, until_ms = span(*kept)
    if until_ms < from_ms:
        raise NothingToCompareError("live and shadow never decided at the same time: there is no span with triggers of both")
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
        returns=_returns(decided, live, shadow),
        checks=[Check(name="none", wanted="", got="", passed=True)],
    )
    return comparison.model_copy(update={"checks": list(verdict(comparison, criteria))})


def verdict(found: Comparison, criteria: Criteria) -> Iterable[Check]:
    """Yield each criterion with what was found."""
    live, shadow = found.live, found.shadow

    def check(name: str, wanted: str, got: str, passed: bool) -> Check:  # noqa: FBT001 - the verdict
        return Check(name=name, wanted=wanted, got=got, passed=passed)

    for name, side in (("live", live), ("shadow", shadow)):
        told = {True: "it does", False: f"no: it decides by configuration {side.config_version}", None: "not checked here"}
        yield check(f"{name} runs its settings file", "yes", told[side.of_its_file], side.of_its_file is not False)
    yield check("what answered the shadow", "no simulator", ", ".join(shadow.sources) or "nothing", "simulator" not in shadow.sources)
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
    if found.returns is not None and found.returns.high is not None:
        high = found.returns.high
        yield check("returns", "interval of the difference not all below 0", f"up to {high * 1e4:+.1f} bp", high >= 0)


def _side(ends: Sequence[AuditSummary], trail: SideRecords, version: str, expected: Expected) -> Side:
    published = [end for end in ends if end.outcome is Outcome.PUBLISHED]
    known = [end for end in ends if end.cached_tokens is not None and end.prompt_tokens]
    tokens = sum(end.prompt_tokens or 0 for end in known)
    accepted = [end.accept_length for end in ends if end.accept_length is not None]
    prompts = _distinct(end.prompt_version for end in ends)
    comparable = expected.config_version is not None and prompts in ([], [expected.prompt_version])
    return Side(
        settings_hash=expected.settings_hash,
        config_version=version,
        of_its_file=version == expected.config_version if comparable else None,
        other_versions=sum(end.config_version != version for end in trail.ends),
        models=_distinct(end.model for end in ends),
        sources=_distinct(end.source for end in ends),
        prompt_versions=prompts,
        triggers=len(ends),
        outcomes=dict(Counter(end.outcome.value for end in ends)),
        reasons=dict(Counter(end.reason for end in ends if end.reason).most_common(_TOP_REASONS)),
        latency_ms=_latency(published),
        prefix_hits=sum(end.cached_tokens or 0 for end in known) / tokens if tokens else None,
        accept_length=float(np.mean(accepted)) if accepted else None,
    )


def _latency(published: Sequence[AuditSummary]) -> dict[str, Spread]:
    if not published:
        return {}
    taken = np.asarray([end.latency_ms for end in published])
    found = {"record_to_decision": _spread(taken[:, :_TO_DECISION].sum(axis=1))}
    return found | {stage: _spread(taken[:, at]) for at, stage in enumerate(LATENCY_STAGES)}


def _spread(values: NDArray[np.float64]) -> Spread:
    p50, p95, p99 = (float(value) for value in np.percentile(values, (50, 95, 99)))
    return Spread(count=len(values), p50=round(p50, 3), p95=round(p95, 3), p99=round(p99, 3))


def _returns(decided: Sequence[Pair], live: SideRecords, shadow: SideRecords) -> Returns | None:
    """Return the paired difference at the moments at which at least one side opened a position and all that did are scored."""
    opened = [pair for pair in decided if _opens(pair.live) or _opens(pair.shadow)]
    for trail, ends in ((live, [pair.live for pair in opened]), (shadow, [pair.shadow for pair in opened])):
        if any(map(_opens, ends)) and not any(end.signal_id in trail.scored for end in ends):
            return None  # nobody scores this side: what is left would be the moments at which it stayed out
    rows = []
    for pair in opened:
        ours, theirs = _made(pair.live, live), _made(pair.shadow, shadow)
        if ours is not None and theirs is not None:
            rows.append((ours[0], theirs[0], pair.live.ts_event_ms, max(ours[1], theirs[1])))
    if not rows:
        return None
    ours_net, theirs_net, start_ms, end_ms = (np.asarray(column) for column in zip(*rows, strict=True))
    block = block_length(start_ms.astype(np.int64), end_ms.astype(np.int64))
    difference = bootstrap_mean(theirs_net - ours_net, block=block, seed=_SEED)
    assert difference is not None  # noqa: S101 - there are rows
    return Returns(
        pairs=len(rows),
        live_mean=float(ours_net.mean()),
        shadow_mean=float(theirs_net.mean()),
        difference=difference.value,
        low=difference.low,
        high=difference.high,
    )


def _opens(end: AuditSummary) -> bool:
    return end.action in {Action.BUY, Action.SELL}


def _made(end: AuditSummary, trail: SideRecords) -> tuple[float, int] | None:
    """Return what a decision made, and when that was known: nothing where it opened no position; None where it is not scored."""
    if not _opens(end):
        return 0.0, end.ts_event_ms
    outcome = trail.scored.get(end.signal_id) if end.signal_id is not None else None
    return None if outcome is None else (outcome.return_net or 0.0, outcome.ts_exit_ms)


def _share(flags: Iterable[bool]) -> float | None:
    found = list(flags)
    return sum(found) / len(found) if found else None


def _distinct(values: Iterable[str | None]) -> list[str]:
    return sorted({value for value in values if value is not None})
