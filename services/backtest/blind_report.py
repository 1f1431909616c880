"""A blind backtest's two runs beside each other: how the figures and the actions differ when symbol and dates are hidden."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from schemas import Action, AuditRecord, Outcome
from services.backtest.backtest_plan import BacktestPlan
from services.backtest.blind import traded
from services.backtest.checkpoint import AUDIT
from services.scoring.report import Report, ReportInput, build

_SHOWN: Final = "shown to the model"
_HIDDEN: Final = "hidden from the model; prices rescaled to 100, dates as numbers of days"


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that has ended, with what its report is built from."""

    plan: BacktestPlan
    path: Path
    given: ReportInput
    report: Report
    elapsed_s: float


def with_both(shown: Finished, hidden: Finished) -> list[Finished]:
    """Return both runs, each report with the figures of the other one beside its own."""
    same = equal_actions(shown, hidden)
    runs = []
    for one, other, state, other_state in ((shown, hidden, "shown", "hidden"), (hidden, shown, "hidden", "shown")):
        facts = {
            "Symbol and dates": _SHOWN if one is shown else _HIDDEN,
            f"With them {state}": _figures(one.report),
            f"With them {other_state}": _figures(other.report),
            "Equal actions": same,
        }
        given = replace(one.given, facts={**facts, **one.given.facts})
        runs.append(replace(one, given=given, report=build(given)))
    return runs


def equal_actions(shown: Finished, hidden: Finished) -> str:
    """Return how often both runs published the same action on the same bar of the same symbol."""
    symbols = [one.symbol for one in traded(shown.plan.feed)]
    ours = _actions(shown.path, dict(zip(symbols, symbols, strict=True)))
    theirs = _actions(hidden.path, dict(zip((one.symbol for one in traded(hidden.plan.feed)), symbols, strict=True)))
    both = ours.keys() & theirs.keys()
    if not both:
        return "no bar was decided on in both runs"
    return f"{sum(ours[key] is theirs[key] for key in both) / len(both):.1%} of {len(both):,} bars decided on in both runs"


def _actions(path: Path, names: Mapping[str, str]) -> dict[tuple[str, str, str, int], Action]:
    found: dict[tuple[str, str, str, int], Action] = {}
    for line in (path / AUDIT).read_bytes().splitlines():
        audit = AuditRecord.decode(line)
        if audit.outcome is Outcome.PUBLISHED and audit.action is not None:
            found[names[audit.symbol], audit.interval, audit.mode, audit.trigger.ts_event_ms] = audit.action
    return found


def _figures(report: Report) -> str:
    mean = report.money.expectancy
    hits = "" if report.hit_rate is None else f", hit rate {report.hit_rate.value:.1%}"
    if mean is None:
        return "no position was opened"
    interval = "" if mean.low is None or mean.high is None else f" (95 %: {mean.low * 1e4:+.1f} to {mean.high * 1e4:+.1f})"
    return f"mean net return {mean.value * 1e4:+.1f} bp{interval}{hits}; {report.counts.opened:,} positions"
