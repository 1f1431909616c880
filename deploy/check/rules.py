"""Checks Prometheus' configuration, rules and rule tests with promtool, and what every alert must have: severity, texts, a runbook."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import yaml

from deploy.check import operations, series
from deploy.check.result import REPOSITORY, CheckResult
from deploy.check.tools import problems, run

PAGES: Final = frozenset({"AquilineTriggersWithoutOutcome", "AquilineStaleRate", "AquilineAllEnginesDown", "AquilineHaltedLong"})
"""Alerts that page: decisions are not made, or not in time, while a market is open."""

_INSTALL: Final = "apt-get install prometheus (deploy/setup/system does)"
_GATE: Final = "aquiline:session_open"


def check() -> CheckResult:
    """Check configuration, rules and tests."""
    folder = series.FOLDER.relative_to(REPOSITORY)
    rules = series.rules()
    alerts = [rule for rule in rules if "alert" in rule]
    tests = sorted((series.FOLDER / "tests").glob("*.yml"))
    wrong = [
        *problems(run("promtool", ["check", "config", f"{folder}/prometheus.yml"], install=_INSTALL)),
        *problems(run("promtool", ["test", "rules", *(str(test.relative_to(REPOSITORY)) for test in tests)], install=_INSTALL)),
        *findings(rules),
        *untested(alerts, [yaml.safe_load(test.read_text(encoding="utf-8")) for test in tests]),
    ]
    return CheckResult(f"{len(alerts)} alerts and {len(rules) - len(alerts)} recording rules", wrong)


def findings(rules: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a sentence for each problem of a rule."""
    known = series.known()
    anchors = operations.anchors()
    for rule in rules:
        name = rule.get("alert") or rule["record"]
        for sentence in series.unknown_names(rule["expr"], known):
            yield f"{name}: {sentence}"
        if "alert" in rule:
            for sentence in _alert(rule, anchors):
                yield f"{name}: {sentence}"


def _alert(rule: Mapping[str, Any], anchors: frozenset[str]) -> Iterator[str]:
    severity = rule.get("labels", {}).get("severity")
    if severity not in {"page", "ticket"}:
        yield f"label severity is {severity!r} and must be page or ticket"
    if (severity == "page") != (rule["alert"] in PAGES):
        yield f"severity is {severity}; the alerts that page are {', '.join(sorted(PAGES))}"
    if severity == "page" and _GATE not in rule["expr"]:
        yield f"it pages without testing {_GATE}"
    annotations = rule.get("annotations", {})
    for annotation in ("summary", "description", "runbook"):
        if not annotations.get(annotation):
            yield f"annotation {annotation} is missing"
    page, _, anchor = annotations.get("runbook", "").partition("#")
    if page != operations.PAGE or anchor not in anchors:
        yield f"runbook {annotations.get('runbook')!r} is not a heading of {operations.PAGE}"


def untested(alerts: Sequence[Mapping[str, Any]], files: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a sentence for each alert without a test in which it fires, or without one in which it does not."""
    cases = [case for file in files for test in file["tests"] for case in test.get("alert_rule_test", [])]
    for name in (alert["alert"] for alert in alerts):
        fires = {bool(case.get("exp_alerts")) for case in cases if case["alertname"] == name}
        for expected, words in ((True, "fires"), (False, "does not fire")):
            if expected not in fires:
                yield f"{name}: no test of deploy/prometheus/tests shows that it {words}"
