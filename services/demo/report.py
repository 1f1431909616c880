"""The demo's files: `demo-report.json`, the raw signals and audit records, and the log that the prompts were built from."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from schemas import Outcome
from services.demo.act import ActResult
from services.demo.checks import RECORD_ENDS
from services.demo.plan import Phase
from services.demo.results import hit_ratio, latencies

REPORT: Final = "demo-report.json"
SIGNALS: Final = "demo-signals.jsonl"
AUDIT: Final = "demo-audit.jsonl"
LOG: Final = "demo-log.jsonl.gz"

_REPORTED_ENDS: Final = ("folded", "duplicates", "filtered", "dead_lettered")

Report = dict[str, Any]


def make_report(acts: Sequence[ActResult], bus: str, redis: str, *, interrupted: bool, duration_s: float) -> Report:
    """Return the report: `acts` has one for each act, and the run's own figures are sums over them."""
    reports = [_act_report(one) for one in acts]
    return {
        "acts": reports,
        **{name: sum(one[name] for one in reports) for name in ("records", *_REPORTED_ENDS, "triggers")},
        "outcomes": _by_outcome(sum((one.results.outcomes for one in acts), Counter())),
        "interrupted": interrupted,
        "duration_s": round(duration_s, 2),
        "bus": bus,
        "redis": redis,
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        },
    }


def _act_report(act: ActResult) -> Report:
    """Return the report of an act; ratios are 0 to 1, None where the engine was not called."""
    results, records, warm = act.results, act.accounts.records, act.warm
    paced = results.published(Phase.PACED)
    answered = [audit for audit in results.audits.values() if audit.answer]
    ratios = {
        "valid_answer_ratio": sum(audit.action is not None for audit in answered) / len(answered) if answered else None,
        "prefix_hit_ratio": hit_ratio(paced),
        "prefix_hit_ratio_all": hit_ratio(results.calls(Phase.PACED), act.warm_paced.prompt_tokens, act.warm_paced.cached_tokens),
        "prefix_hit_ratio_whole_run": hit_ratio(results.calls(), warm.prompt_tokens, warm.cached_tokens),
    }
    return {
        "name": act.act.name,
        "records": records.total(),
        **dict(zip(_REPORTED_ENDS, (records[end] for end in RECORD_ENDS), strict=True)),
        "dead_letters": dict(act.accounts.dead_letters),
        "triggers": len(results.audits),
        "outcomes": _by_outcome(results.outcomes),
        "outcomes_by_phase": {phase.value: _by_outcome(counts) for phase, counts in results.by_phase.items()},
        "reasons": {f"{outcome.value}/{reason}": count for (outcome, reason), count in sorted(results.reasons.items())},
        "actions": dict(sorted(Counter(signal.action.value for signal in results.signals.values()).items())),
        "sources": dict(sorted(Counter(signal.source for signal in results.signals.values()).items())),
        "cancels": dict(sorted(Counter(cancel.reason.value for cancel in results.cancels).items())),
        "vision": {state: sum(audit.vision == state for audit in results.published()) for state in ("fresh", "stale", "absent")},
        **{name: None if ratio is None else round(ratio, 4) for name, ratio in ratios.items()},
        "prompt_tokens": {
            "decisions": sum(audit.prompt_tokens or 0 for audit in results.calls()),
            "decisions_cached": sum(audit.cached_tokens or 0 for audit in results.calls()),
            "sent_ahead": warm.prompt_tokens,
            "sent_ahead_cached": warm.cached_tokens,
            "sent_ahead_calls": warm.calls,
        },
        "latency_ms": latencies(paced),
        "sums": [{"what": one.what, "said": one.said, "ok": one.ok} for one in act.checks],
        "setup_s": round(act.setup_s, 2),
        "duration_s": round(act.duration_s, 2),
        "engine_outage_s": None if act.outage_s is None else round(act.outage_s, 2),
        "engine": {
            "name": act.engine.name,
            "source": act.engine.source,
            "model": act.engine.model,
            "started_by_the_demo": act.act.engine is not None,
        },
        "settings": act.settings.model_dump(mode="json"),
    }


def write_files(folder: Path, report: Report, acts: Sequence[ActResult]) -> None:
    """Write report, signals and audit records, replacing those of an earlier run; raise OSError."""
    (folder / REPORT).write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2) + b"\n")
    for name, lines in (
        (SIGNALS, [line for one in acts for line in one.signal_lines]),
        (AUDIT, [line for one in acts for line in one.audit_lines]),
    ):
        (folder / name).write_bytes(b"".join(line + b"\n" for line in lines))


def _by_outcome(counts: Counter[Outcome]) -> dict[str, int]:
    return {outcome.value: counts[outcome] for outcome in Outcome}
