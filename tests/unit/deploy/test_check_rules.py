"""What the check of Prometheus' rules finds, and that there is nothing of it in ours. promtool itself runs as it does for operators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from deploy.check import rules, series
from deploy.check.promql import names_in
from deploy.check.result import REPOSITORY
from services.inference.simulator import report
from services.inference.simulator.gpu import Gpu
from services.inference.simulator.timing import Calibration

GOOD: Mapping[str, Any] = {
    "alert": "AquilineStaleRate",
    "expr": "aquiline:late_ratio:10m > 0.2 and on () (aquiline:session_open == 1)",
    "labels": {"severity": "page"},
    "annotations": {"summary": "s", "description": "d", "runbook": "docs/operations.md#aquilinestalerate"},
}
THOSE = f"the alerts that page are {', '.join(sorted(rules.PAGES))}"


def test_ours_are_well_tested_and_explained() -> None:
    assert list(rules.check().problems) == []


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({}, []),
        ({"expr": "aquiline_halted > 0"}, ["it pages without testing aquiline:session_open"]),
        ({"labels": {}}, ["label severity is None and must be page or ticket", f"severity is None; {THOSE}"]),
        ({"alert": "AquilineOther"}, [f"severity is page; {THOSE}"]),
        ({"expr": "aquiline_no_such > 0 and on () (aquiline:session_open == 1)"}, ["aquiline_no_such is not a known metric"]),
        (
            {"expr": 'aquiline_halted{symbol="X"} > 0 and on () (aquiline:session_open == 1)'},
            ["aquiline_halted has no label symbol; its labels are instance, job"],
        ),
        (
            {"annotations": {"summary": "s", "runbook": "docs/operations.md#nowhere"}},
            ["annotation description is missing", "runbook 'docs/operations.md#nowhere' is not a heading of docs/operations.md"],
        ),
    ],
)
def test_what_an_alert_lacks_is_reported(change: Mapping[str, Any], found: list[str]) -> None:
    rule = {**GOOD, **change}
    assert [f"{rule['alert']}: {sentence}" for sentence in found] == list(rules.findings([rule]))


def test_an_alert_that_no_test_fires_or_none_leaves_be_is_named() -> None:
    fires: Mapping[str, Any] = {"tests": [{"alert_rule_test": [{"alertname": "A", "exp_alerts": [{"exp_labels": {}}]}]}]}
    quiet: Mapping[str, Any] = {"tests": [{"alert_rule_test": [{"alertname": "A"}]}]}
    assert [len(list(rules.untested([{"alert": "A"}], files))) for files in ([fires, quiet], [fires], [quiet], [])] == [0, 1, 1, 2]


@pytest.mark.parametrize(
    ("expression", "metrics", "grouped"),
    [
        ("a", {"a": set()}, set()),
        (
            'sum by (x, y) (rate(a_total{z="1", w!~"b|c"}[5m])) / on (x) group_left (v) b:c:d offset 5m',
            {"a_total": {"z", "w"}, "b:c:d": set()},
            {"x", "y", "v"},
        ),
        ("sum(a) by (x) > bool 5 and on () (b == 1e3) or vector(1)", {"a": set(), "b": set()}, {"x"}),
        ('label_replace(up == 0, "a", "$1", "b", "c{d}") unless absent(e)', {"up": set(), "e": set()}, set()),
        ("histogram_quantile(0.95, sum without (x) (rate(h_bucket[1m:5s])))", {"h_bucket": set()}, {"x"}),
        ("sglang:token_usage > inf", {"sglang:token_usage": set()}, set()),
    ],
)
def test_metrics_and_labels_of_an_expression_are_told(expression: str, metrics: dict[str, set[str]], grouped: set[str]) -> None:
    found = names_in(expression)
    assert (metrics, grouped) == (found.metrics, found.grouped)


def test_a_selector_without_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match="has no metric name"):
        names_in('{job="fusion"}')


def test_the_engine_series_that_count_as_known_are_those_of_the_simulator() -> None:
    gpu = Gpu(Calibration.from_file(REPOSITORY / "services" / "inference" / "data" / "calibration-h100.json"))
    said = report.prometheus(gpu, report.Totals(), 1.0)
    exported = {line.split("{")[0] for line in said.splitlines() if not line.startswith("#")}
    assert {name for name in series.known() if name.startswith("sglang:")} == exported
