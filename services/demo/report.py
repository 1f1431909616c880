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
from services.core.settings import Settings
from services.demo.act import Measured
from services.demo.checks import RECORD_ENDS, Check
from services.demo.plan import Phase
from services.demo.results import Results, hit_ratio, latencies

REPORT: Final = "demo-report.json"
SIGNALS: Final = "demo-signals.jsonl"
AUDIT: Final = "demo-audit.jsonl"
LOG: Final = "demo-log.jsonl.gz"

Report = dict[str, Any]


def make_report(settings: Settings, bus: str, measured: Measured, results: Results, checks: Sequence[Check]) -> Report:
    """Return the report; ratios are 0 to 1, None where the engine was not called."""
    paced, records, warm = results.published(Phase.PACED), measured.accounts.records, measured.warm
    ratios = {
        "prefix_hit_ratio": hit_ratio(paced),
        "prefix_hit_ratio_all": hit_ratio(results.calls(Phase.PACED), measured.warm_paced.prompt_tokens, measured.warm_paced.cached_tokens),
        "prefix_hit_ratio_whole_run": hit_ratio(results.calls(), warm.prompt_tokens, warm.cached_tokens),
    }
    return {
        "records": records.total(),
        **dict(zip(("folded", "duplicates", "filtered", "dead_lettered"), (records[end] for end in RECORD_ENDS), strict=True)),
        "dead_letters": dict(measured.accounts.dead_letters),
        "triggers": len(results.audits),
        "outcomes": _by_outcome(results.outcomes),
        "outcomes_by_phase": {phase.value: _by_outcome(counts) for phase, counts in results.by_phase.items()},
        "reasons": {f"{outcome.value}/{reason}": count for (outcome, reason), count in sorted(results.reasons.items())},
        "actions": dict(sorted(Counter(signal.action.value for signal in results.signals.values()).items())),
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
        "sums": [{"what": one.what, "said": one.said, "ok": one.ok} for one in checks],
        "interrupted": measured.interrupted,
        "setup_s": round(measured.played_s - measured.started_s, 2),
        "duration_s": round(measured.ended_s - measured.played_s, 2),
        "engine_outage_s": None if measured.outage_s is None else round(measured.outage_s, 2),
        "bus": bus,
        "redis": settings.redis.url,
        "engine": {
            "name": measured.engine.name,
            "source": measured.engine.source,
            "model": measured.engine.model,
            "started_by_the_demo": measured.own_engine,
        },
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        },
        "settings": settings.model_dump(mode="json"),
    }


def write_files(folder: Path, report: Report, signals: Sequence[bytes], audit: Sequence[bytes]) -> None:
    """Write report, signals and audit records, replacing those of an earlier run; raise OSError."""
    (folder / REPORT).write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2) + b"\n")
    for name, lines in ((SIGNALS, signals), (AUDIT, audit)):
        (folder / name).write_bytes(b"".join(line + b"\n" for line in lines))


def _by_outcome(counts: Counter[Outcome]) -> dict[str, int]:
    return {outcome.value: counts[outcome] for outcome in Outcome}
