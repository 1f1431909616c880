"""What came of each act, the report of a run with its closing checks, and the run's files."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from schemas import AuditRecord, Outcome, Topic
from services.core.settings import Settings
from services.demo.plan import Phase
from services.demo.setup import Act
from services.fusion.deliver.accounts import Accounts
from services.fusion.prompt.prewarm import WarmCount
from services.inference.engine import EngineInfo
from services.pipeline.closing_checks import closing_checks
from services.pipeline.outputs import Outputs, calls, hit_ratio, latencies, outcomes, published
from services.replay.audit_trail import write_lines

REPORT: Final = "demo-report.json"
SIGNALS: Final = "demo-signals.jsonl"
AUDIT: Final = "demo-audit.jsonl"
LOG: Final = "demo-log.jsonl.gz"
FILES: Final = (REPORT, SIGNALS, AUDIT, LOG)
VISION_STATES: Final = ("fresh", "stale", "absent")
_SUMMED: Final = ("records", "folded", "duplicates", "filtered", "dead_lettered", "triggers")

Report = dict[str, Any]


@dataclass(slots=True)
class ActResult:
    """An act as far as it has been played; durations in seconds."""

    act: Act
    settings: Settings
    """The worker's, with the engine's address."""
    engine: EngineInfo
    outputs: Outputs
    accounts: Accounts = field(default_factory=Accounts)
    inputs: int = 0
    """Records that the input topics gained while the worker ran."""
    warm: WarmCount = field(default_factory=WarmCount)
    """Tokens sent ahead so far, set-up included."""
    warm_paced: WarmCount = field(default_factory=WarmCount)
    """Those up to the end of the paced phase."""
    setup_s: float = 0.0
    duration_s: float = 0.0
    outage_s: float | None = None

    def of(self, phase: Phase) -> list[AuditRecord]:
        """Return the audit records of a phase."""
        return [audit for audit in self.outputs.audits.values() if self.act.plan.phase_at(audit.trigger.ts_event_ms) is phase]


def make_report(acts: Sequence[ActResult], bus: str, redis: str, *, interrupted: bool, duration_s: float) -> Report:
    """Return the report: `acts` has one for each act, and the run's own figures are sums over them."""
    reports = [_act_report(one) for one in acts]
    return {
        "acts": reports,
        **{name: sum(one[name] for one in reports) for name in _SUMMED},
        "outcomes": _counts(outcomes(audit for one in acts for audit in one.outputs.audits.values()), Outcome),
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


def _act_report(result: ActResult) -> Report:
    """Return the report of an act; ratios are 0 to 1, None where the engine was not called."""
    act, warm, engine = result.act, result.warm, result.engine
    audits, signals, paced = list(result.outputs.audits.values()), result.outputs.signals.values(), result.of(Phase.PACED)
    called = calls(audits)
    valid = [audit.action is not None for audit in audits if audit.answer]
    ratios = {
        "valid_answer_ratio": sum(valid) / len(valid) if valid else None,
        "prefix_hit_ratio": hit_ratio(published(paced)),
        "prefix_hit_ratio_all": hit_ratio(calls(paced), result.warm_paced),
        "prefix_hit_ratio_whole_run": hit_ratio(called, warm),
    }
    return {
        "name": act.name,
        **result.accounts.summary(),
        "triggers": len(audits),
        "outcomes": _counts(outcomes(audits), Outcome),
        "outcomes_by_phase": {one.phase.value: _counts(outcomes(result.of(one.phase)), Outcome) for one in act.plan.phases},
        "reasons": _sorted_counts(f"{audit.outcome.value}/{audit.reason}" for audit in audits if audit.reason is not None),
        "actions": _sorted_counts(signal.action.value for signal in signals),
        "sources": _sorted_counts(signal.source for signal in signals),
        "cancels": _sorted_counts(cancel.reason.value for cancel in result.outputs.cancels),
        "vision": _counts(Counter(audit.vision for audit in published(audits)), VISION_STATES),
        **{name: None if ratio is None else round(ratio, 4) for name, ratio in ratios.items()},
        "prompt_tokens": {
            "decisions": sum(audit.prompt_tokens or 0 for audit in called),
            "decisions_cached": sum(audit.cached_tokens or 0 for audit in called),
            "sent_ahead": warm.prompt_tokens,
            "sent_ahead_cached": warm.cached_tokens,
            "sent_ahead_calls": warm.calls,
        },
        "latency_ms": latencies(published(paced)),
        "sums": [one._asdict() for one in closing_checks(result.accounts, result.outputs, result.inputs)],
        "setup_s": round(result.setup_s, 2),
        "duration_s": round(result.duration_s, 2),
        "engine_outage_s": None if result.outage_s is None else round(result.outage_s, 2),
        "engine": {"name": engine.name, "source": engine.source, "model": engine.model, "started_by_the_demo": act.engine is not None},
        "settings": result.settings.model_dump(mode="json"),
    }


def _counts(counts: Mapping[Any, int], values: Iterable[str]) -> dict[str, int]:
    """Return the count of each of `values`."""
    return {str(value): counts[value] for value in values}


def _sorted_counts(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


def write_files(folder: Path, report: Report, acts: Sequence[ActResult]) -> None:
    """Write report, signals and audit records, replacing those of an earlier run; raise OSError."""
    (folder / REPORT).write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2) + b"\n")
    for name, topic in ((SIGNALS, Topic.STRATEGY_SIGNALS), (AUDIT, Topic.SIGNAL_AUDIT)):
        write_lines(folder / name, [line for one in acts for line in one.outputs.lines[topic]])
