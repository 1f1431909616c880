"""The demo's files: `demo-report.json`, signals and audit records as they stand on their topics, and the log that they rest on."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from schemas import Outcome
from services.core.settings import Settings
from services.demo.script import Phase
from services.demo.sums import RECORD_ENDS, Sum
from services.demo.tally import Tally, hit_ratio, latencies
from services.fusion.deliver.accounts import Accounts
from services.fusion.prompt.prewarm import WarmCount
from services.inference.engine import EngineInfo

REPORT: Final = "demo-report.json"
SIGNALS: Final = "demo-signals.jsonl"
AUDIT: Final = "demo-audit.jsonl"
LOG: Final = "demo-log.jsonl.gz"
_DIGITS: Final = 4

Report = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Facts:
    """What the run itself knows beside the topics."""

    settings: Settings
    bus: str
    engine: EngineInfo | None
    own_engine: bool
    setup_s: float
    duration_s: float
    outage_s: float | None
    interrupted: bool
    warm_paced: WarmCount
    """Sent ahead until the paced part's end, set-up included."""
    warm: WarmCount
    """Sent ahead in all."""


def make_report(facts: Facts, accounts: Accounts, tally: Tally, sums: Sequence[Sum]) -> Report:
    """Return the report; ratios are 0 to 1, None where no call was made."""
    paced = tally.published(Phase.PACED)
    records = accounts.records
    return {
        "records": sum(records.values()),
        **dict(zip(("folded", "duplicates", "filtered", "dead_lettered"), (records[end] for end in RECORD_ENDS), strict=True)),
        "dead_letters": dict(accounts.dead_letters),
        "triggers": len(tally.audits),
        "outcomes": {outcome.value: tally.outcomes[outcome] for outcome in Outcome},
        "outcomes_by_phase": {
            phase.value: {outcome.value: counts[outcome] for outcome in Outcome} for phase, counts in tally.by_phase.items()
        },
        "reasons": {f"{outcome.value}/{reason}": count for (outcome, reason), count in sorted(tally.reasons.items())},
        "actions": dict(sorted(Counter(signal.action.value for signal in tally.signals.values()).items())),
        "cancels": dict(sorted(Counter(cancel.reason.value for cancel in tally.cancels).items())),
        "vision": {state: sum(audit.vision == state for audit in tally.published()) for state in ("fresh", "stale", "absent")},
        "prefix_hit_ratio": _rounded(hit_ratio(paced)),
        "prefix_hit_ratio_all": _rounded(
            hit_ratio(tally.calls(Phase.PACED), facts.warm_paced.prompt_tokens, facts.warm_paced.cached_tokens)
        ),
        "prefix_hit_ratio_whole_run": _rounded(hit_ratio(tally.calls(), facts.warm.prompt_tokens, facts.warm.cached_tokens)),
        "prompt_tokens": {
            "decisions": sum(audit.prompt_tokens or 0 for audit in tally.calls()),
            "decisions_cached": sum(audit.cached_tokens or 0 for audit in tally.calls()),
            "sent_ahead": facts.warm.prompt_tokens,
            "sent_ahead_cached": facts.warm.cached_tokens,
            "sent_ahead_calls": facts.warm.calls,
        },
        "latency_ms": latencies(paced),
        "sums": [{"what": one.what, "said": one.said, "ok": one.ok} for one in sums],
        "interrupted": facts.interrupted,
        "setup_s": round(facts.setup_s, 2),
        "duration_s": round(facts.duration_s, 2),
        "engine_outage_s": None if facts.outage_s is None else round(facts.outage_s, 2),
        "bus": facts.bus,
        "redis": facts.settings.redis.url,
        "engine": _engine(facts),
        "machine": _machine(),
        "settings": facts.settings.model_dump(mode="json"),
    }


def write_files(folder: Path, report: Report, signals: Sequence[bytes], audit: Sequence[bytes]) -> None:
    """Write the three files, replacing those of an earlier run; raise OSError."""
    (folder / REPORT).write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2) + b"\n")
    for name, lines in ((SIGNALS, signals), (AUDIT, audit)):
        (folder / name).write_bytes(b"".join(line + b"\n" for line in lines))


def _engine(facts: Facts) -> dict[str, Any]:
    info = facts.engine
    if info is None:
        return {"name": None, "source": None, "model": None, "started_by_the_demo": facts.own_engine}
    return {"name": info.name, "source": info.source, "model": info.model, "started_by_the_demo": facts.own_engine}


def _machine() -> dict[str, Any]:
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "cpus": len(_usable_cpus()),
    }


def _usable_cpus() -> Sequence[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)


def _rounded(ratio: float | None) -> float | None:
    return None if ratio is None else round(ratio, _DIGITS)
