"""The report of a run, with what must hold of every run over what the topics hold and the worker counted; and the run's files."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from schemas import Outcome, Topic
from services.demo.act import ActResult
from services.demo.plan import Phase
from services.demo.results import VISION_STATES, Results, hit_ratio, latencies
from services.fusion.deliver.accounts import Accounts
from services.replay.audit_trail import write_lines

REPORT: Final = "demo-report.json"
SIGNALS: Final = "demo-signals.jsonl"
AUDIT: Final = "demo-audit.jsonl"
LOG: Final = "demo-log.jsonl.gz"
_ENDS: Final = {"folded": "folded", "duplicate": "duplicates", "filtered": "filtered", "dead_lettered": "dead_lettered"}
"""The ends of a record, as the worker counts them and as the report names them."""

Report = dict[str, Any]


class Check(NamedTuple):
    """One closing check: `ok` when it holds; `said` gives the numbers either way."""

    what: str
    said: str
    ok: bool


def closing_checks(accounts: Accounts, results: Results, inputs: int) -> list[Check]:
    """Return the checks; `inputs` is how many records the input topics gained while the worker ran."""
    ends, outcomes = {end: accounts.records[end] for end in _ENDS}, _by_value(results.outcomes(), Outcome)
    audits, signals = results.audits.values(), results.signals
    published = [audit.signal_id for audit in audits if audit.outcome is Outcome.PUBLISHED]
    on_topic = sum(signal_id in signals for signal_id in published)
    failed = [audit for audit in audits if audit.outcome is Outcome.FAILED]
    failed_with_signal = sum(audit.signal_id is not None for audit in failed)
    expired = sum(signal.ts_decided_ms > signal.valid_until_ms for signal in signals.values())
    newest: dict[tuple[str, str, str], int] = {}
    steps_back = 0
    for signal in signals.values():  # in their topic's order
        lane, offset = (signal.symbol, signal.interval, signal.mode), signal.as_of.market.offset
        steps_back += offset < newest.get(lane, -1)
        newest[lane] = max(offset, newest.get(lane, -1))
    return [
        Check(
            "every record was folded, ignored or dead-lettered",
            f"{inputs} = {_sum_of(ends)}",
            sum(accounts.records.values()) == sum(ends.values()) == inputs,
        ),
        Check(
            "every trigger has one outcome in the audit",
            f"{accounts.triggers} = {_sum_of(outcomes)}",
            accounts.triggers == len(audits) == sum(outcomes.values()) and results.contradictions == 0,
        ),
        Check(
            "audit and worker count the same",
            f"{len(audits)} in the audit, {accounts.outcomes.total()} counted",
            all(accounts.outcomes[outcome] == count for outcome, count in outcomes.items()),
        ),
        Check(
            "every published outcome has its signal",
            f"{len(published)} published, {on_topic} of them on the topic",
            on_topic == len(published) == len(set(published)),
        ),
        Check("no failure became a signal", f"{len(failed)} failed, {failed_with_signal} of them with a signal", failed_with_signal == 0),
        Check("no signal left past its validity", f"{len(signals)} signals, {expired} of them past their validity", expired == 0),
        Check("no lane went back in time", f"{len(newest)} lanes, {steps_back} steps back", steps_back == 0),
    ]


def _sum_of(counts: Mapping[str, int]) -> str:
    return " + ".join(f"{count} {name}" for name, count in counts.items())


def make_report(acts: Sequence[ActResult], bus: str, redis: str, *, interrupted: bool, duration_s: float) -> Report:
    """Return the report: `acts` has one for each act, and the run's own figures are sums over them."""
    reports = [_act_report(one) for one in acts]
    outcomes = sum((one.results.outcomes() for one in acts), Counter[Outcome]())
    return {
        "acts": reports,
        **{name: sum(one[name] for one in reports) for name in ("records", *_ENDS.values(), "triggers")},
        "outcomes": _by_value(outcomes, Outcome),
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
    results, records, warm, calls = act.results, act.accounts.records, act.warm, act.results.calls()
    audits, signals, paced = results.audits.values(), results.signals.values(), results.published(Phase.PACED)
    valid = [audit.action is not None for audit in audits if audit.answer]
    ratios = {
        "valid_answer_ratio": sum(valid) / len(valid) if valid else None,
        "prefix_hit_ratio": hit_ratio(paced),
        "prefix_hit_ratio_all": hit_ratio(results.calls(Phase.PACED), act.warm_paced),
        "prefix_hit_ratio_whole_run": hit_ratio(calls, warm),
    }
    return {
        "name": act.act.name,
        "records": records.total(),
        **{name: records[end] for end, name in _ENDS.items()},
        "dead_letters": dict(act.accounts.dead_letters),
        "triggers": len(audits),
        "outcomes": _by_value(results.outcomes(), Outcome),
        "outcomes_by_phase": {one.phase.value: _by_value(results.outcomes(one.phase), Outcome) for one in act.act.plan.phases},
        "reasons": _sorted_counts(f"{audit.outcome.value}/{audit.reason}" for audit in audits if audit.reason is not None),
        "actions": _sorted_counts(signal.action.value for signal in signals),
        "sources": _sorted_counts(signal.source for signal in signals),
        "cancels": _sorted_counts(cancel.reason.value for cancel in results.cancels),
        "vision": _by_value(Counter(audit.vision for audit in results.published()), VISION_STATES),
        **{name: None if ratio is None else round(ratio, 4) for name, ratio in ratios.items()},
        "prompt_tokens": {
            "decisions": sum(audit.prompt_tokens or 0 for audit in calls),
            "decisions_cached": sum(audit.cached_tokens or 0 for audit in calls),
            "sent_ahead": warm.prompt_tokens,
            "sent_ahead_cached": warm.cached_tokens,
            "sent_ahead_calls": warm.calls,
        },
        "latency_ms": latencies(paced),
        "sums": [one._asdict() for one in closing_checks(act.accounts, results, act.inputs)],
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


def _by_value(counts: Mapping[Any, int], values: Iterable[str]) -> dict[str, int]:
    """Return the count of each of `values`."""
    return {str(value): counts[value] for value in values}


def _sorted_counts(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


def write_files(folder: Path, report: Report, acts: Sequence[ActResult]) -> None:
    """Write report, signals and audit records, replacing those of an earlier run; raise OSError."""
    (folder / REPORT).write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2) + b"\n")
    for name, topic in ((SIGNALS, Topic.STRATEGY_SIGNALS), (AUDIT, Topic.SIGNAL_AUDIT)):
        write_lines(folder / name, [line for one in acts for line in one.results.lines[topic]])
