"""What became of the bars of one arrival rate: verdicts, times by stage, prefix hits, and what switches of epoch cost."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from benchmarks.gpu import answers
from benchmarks.gpu.recording import Call
from schemas import AuditRecord, Outcome

STAGES = ("fold", "vision_wait", "queue", "prompt", "first_token", "decision")
TARGET_MS = 400.0
CLOSING = '"rationale":""}'


@dataclass(frozen=True, slots=True)
class Stage:
    """One rate, played: `sent_ms` is the wall time of each bar by (symbol, close), `calls` are the engine's by prompt hash."""

    rate: float
    bars: int
    seconds: float
    late_ms: float
    """How late the latest bar was sent."""
    sent_ms: dict[tuple[str, int], float]
    audits: list[AuditRecord]
    calls: dict[str, Call]
    sent_ahead: dict[str, int]


def shares(values: Iterable[float | None]) -> dict[str, float] | None:
    """Return median, 95th percentile (nearest rank), most and count of the values that are there."""
    present = sorted(value for value in values if value is not None)
    if not present:
        return None

    def at(share: float) -> float:
        return round(present[max(0, math.ceil(share * len(present)) - 1)], 2)

    return {"median": at(0.5), "p95": at(0.95), "max": at(1.0), "n": len(present)}


def describe_rate(stage: Stage) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the row of a rate, and a line for each trigger."""
    seen: dict[str, str] = {}
    details = []
    for audit in sorted(stage.audits, key=lambda audit: audit.ts_done_ms):
        details.append(detail(stage, audit, seen.get(audit.symbol)))
        if audit.epoch is not None:
            seen[audit.symbol] = audit.epoch
    asked = [one for one in details if one["first_token_ms"] is not None]
    prompts = sum(one["prompt_tokens"] for one in asked)
    row = {
        "bars": stage.bars,
        "seconds": round(stage.seconds, 1),
        "latest_bar_sent_late_ms": round(stage.late_ms, 1),
        "ended": dict(Counter(f"{one['outcome']} {one['reason'] or ''}".strip() for one in details)),
        "asked": len(asked),
        "prompt_tokens": shares(one["prompt_tokens"] for one in asked),
        "prefix_hits": round(sum(one["cached_tokens"] or 0 for one in asked) / prompts, 4) if prompts else None,
        "uncached_tokens": shares(one["prompt_tokens"] - (one["cached_tokens"] or 0) for one in asked),
        "bar_to_record_ms": shares(one["bar_to_record_ms"] for one in details),
        "record_to_verdict_ms": shares(one["verdict_ms"] for one in asked),
        "record_to_verdict_of_published_ms": shares(one["verdict_ms"] for one in asked if one["outcome"] == "published"),
        "record_to_published_ms": shares(one["published_ms"] for one in asked),
        "record_to_decision_token_ms": shares(one["decision_token_ms"] for one in asked),
        "decision_within_400_ms": within([one["decision_token_ms"] for one in asked]),
        "stages_ms": {name: shares(one["stages"].get(name) for one in asked) for name in STAGES},
        "decision_tokens": shares(one["decision_tokens"] for one in asked),
        "output_tokens": shares(one["output_tokens"] for one in asked),
        "ms_a_token": shares(one["ms_a_token"] for one in asked),
        "accept_length": shares(one["accept_length"] for one in asked),
        "first_of_an_epoch": half([one for one in asked if one["first_of_an_epoch"]]),
        "later_in_an_epoch": half([one for one in asked if not one["first_of_an_epoch"]]),
        "answers": validity(asked),
        "sent_ahead": stage.sent_ahead,
    }
    return row, details


def detail(stage: Stage, audit: AuditRecord, epoch_before: str | None) -> dict[str, Any]:
    """Return one trigger's line: times in milliseconds from its record."""
    call = stage.calls.get(audit.prompt_hash or "")
    sent_ms = stage.sent_ms.get((audit.symbol, audit.trigger.ts_event_ms))
    first_ms, decided = audit.latency_ms.get("first_token"), audit.latency_ms.get("decision")
    spent = [audit.latency_ms.get(name, 0.0) for name in STAGES]
    # Whatever ended without a parsed decision has no such stage: its verdict is the audit's own time.
    verdict_ms = sum(spent) if decided is not None else float(audit.ts_done_ms - audit.trigger.ts_ms)
    length = call.length if call is not None else None
    decision_tokens = None if call is None else call.decision_tokens if length is None else length.decision
    at_ms = call.token_at_ms(decision_tokens) if call is not None and decision_tokens is not None else None
    arrivals = call.arrivals if call is not None else []
    pace = None
    if len(arrivals) > 1 and arrivals[-1][1] > arrivals[0][1]:
        pace = (arrivals[-1][0] - arrivals[0][0]) / (arrivals[-1][1] - arrivals[0][1])
    return {
        "rate": stage.rate,
        "symbol": audit.symbol,
        "bar_ms": audit.trigger.ts_event_ms,
        "outcome": audit.outcome.value,
        "reason": audit.reason,
        "action": audit.action.value if audit.action is not None else None,
        "epoch": audit.epoch,
        "first_of_an_epoch": epoch_before is not None and audit.epoch is not None and audit.epoch != epoch_before,
        "vision": audit.vision,
        "bar_to_record_ms": None if sent_ms is None else round(audit.trigger.ts_ms - sent_ms, 1),
        "verdict_ms": round(verdict_ms, 1) if audit.outcome not in {Outcome.CONFLATED, Outcome.STALE} else None,
        "published_ms": published_ms(audit, spent),
        "decision_token_ms": None if at_ms is None else round(at_ms - audit.trigger.ts_ms, 1),
        "stages": audit.latency_ms,
        "first_token_ms": first_ms,
        "prompt_tokens": audit.prompt_tokens,
        "cached_tokens": audit.cached_tokens,
        "decision_tokens": decision_tokens,
        "output_tokens": arrivals[-1][1] if arrivals else None,
        "ms_a_token": None if pace is None else round(pace, 2),
        "accept_length": audit.accept_length,
        "finish": call.finish if call is not None else None,
        "fault": None if call is None or length is not None else fault(call),
        "answer": call.text if call is not None and length is None else None,
    }


def published_ms(audit: AuditRecord, spent: list[float]) -> float | None:
    """Return the time from a record to its signal's acknowledgement, None where none was published."""
    return round(sum(spent) + audit.latency_ms.get("publish", 0.0), 1) if audit.outcome is Outcome.PUBLISHED else None


def fault(call: Call) -> str | None:
    """Return what is wrong with an answer; of one that the worker cut after its decision, what is wrong up to there."""
    if not call.text.startswith("{"):
        return answers.line_fault(call.text)
    schema, _ = answers.schema_text()
    if call.finish == "stop":
        return answers.fault(call.text, schema)
    if call.decision_tokens is None:
        return f"no decision in {len(call.text)} characters, ended by {call.finish or 'the worker'}"
    return answers.fault(call.text[: call.text.index('"rationale"')] + CLOSING, schema)


def validity(asked: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how many answers were whole and how many were cut by the worker after the decision, and what was wrong with any."""
    judged = [one for one in asked if one["answer"] is not None]
    whole = [one for one in judged if one["finish"] == "stop"]
    return {
        "whole": len(whole),
        "whole_and_valid": sum(one["fault"] is None for one in whole),
        "cut_after_the_decision": len(judged) - len(whole),
        "cut_and_valid_so_far": sum(one["fault"] is None for one in judged if one["finish"] != "stop"),
        "faults": dict(Counter(one["fault"] for one in judged if one["fault"])),
    }


def half(some: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what tells decisions at a switch of epoch from others."""
    return {
        "uncached_tokens": shares(one["prompt_tokens"] - (one["cached_tokens"] or 0) for one in some),
        "first_token_ms": shares(one["first_token_ms"] for one in some),
        "verdict_ms": shares(one["verdict_ms"] for one in some),
    }


def within(times: list[float | None]) -> float | None:
    """Return the share of the times that are at most TARGET_MS; one that never came is not."""
    return round(sum(one is not None and one <= TARGET_MS for one in times) / len(times), 4) if times else None
