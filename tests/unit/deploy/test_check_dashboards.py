"""What the check of dashboards finds, and that there is nothing of it in ours."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from deploy.check import dashboards

OURS = json.loads((dashboards.FOLDER / "dashboards" / "aquiline.json").read_text())
UID = "prometheus"


def test_ours_fits_one_screen_and_asks_for_what_there_is() -> None:
    assert list(dashboards.check().problems) == []


def test_three_questions_are_asked_from_top_to_bottom() -> None:
    rows = sorted((panel["gridPos"]["y"], panel["title"]) for panel in OURS["panels"] if panel["type"] == "row")
    assert [title for _, title in rows] == ["Is it on time?", "Is it right?", "Why not?"]


@pytest.mark.parametrize(
    ("path", "value", "found"),
    [
        (["uid"], "", "uid is missing"),
        (["panels", 1, "id"], 1, "panels share an id"),
        (["panels", 1, "description"], "", "the description is missing"),
        (["panels", 1, "fieldConfig", "defaults", "unit"], "", "the unit is missing"),
        (["panels", 1, "datasource", "uid"], "another", "the provisioned one is 'prometheus'"),
        (["panels", 1, "targets", 0, "datasource", "uid"], "another", "the provisioned one is 'prometheus'"),
        (["panels", 9, "targets", 1, "refId"], "A", "each needs its own letter"),
        (["panels", 1, "gridPos", "x"], 2, "it overlaps Signals, last 5 min"),
        (["panels", 1, "gridPos", "w"], 30, "it exceeds one screen of 24 columns"),
        (["panels", 1, "gridPos", "h"], 40, "it exceeds one screen of 24 columns and 26 rows"),
    ],
)
def test_what_is_wrong_with_a_dashboard_is_named(path: list[str | int], value: object, found: str) -> None:
    board: Any = copy.deepcopy(OURS)
    assert list(dashboards.findings(board, UID)) == []
    place = board
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    assert [sentence for sentence in dashboards.findings(board, UID) if found in sentence], list(dashboards.findings(board, UID))


def test_queries_come_with_their_windows_filled_in_and_annotations_too() -> None:
    asked = [expression for _, expression in dashboards.queries(OURS)]
    assert not [expression for expression in asked if "$" in expression]
    assert any("ALERTS" in expression for expression in asked)


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("rate(aquiline_stage_seconds_bucket[1m])", []),
        ("aquiline_stage_seconds", ["aquiline_stage_seconds is not a known metric"]),
        ("sum by (symbol) (aquiline_lanes)", ["none of its metrics has a label symbol"]),
    ],
)
def test_a_query_for_what_does_not_exist_is_named(expression: str, found: list[str]) -> None:
    assert found == dashboards.unknown_names(expression)


def test_a_query_that_is_no_promql_is_named() -> None:
    assert dashboards._syntax(["sum(aquiline_lanes)"]) == []
    assert dashboards._syntax(["sum(aquiline_lanes"]) != []
