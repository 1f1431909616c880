"""Grafana's provisioning and dashboards: that they fit each other and one screen, and that every query names series that exist.

No Grafana reads them here: what is checked is structure, and the queries through promtool.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from deploy.check import series
from deploy.check.result import REPOSITORY, CheckResult
from deploy.check.tools import problems, run

FOLDER: Final = REPOSITORY / "deploy" / "grafana"
_INSTALL: Final = "apt-get install prometheus (deploy/setup/system does)"
_COLUMNS: Final = 24
_SCREEN_ROWS: Final = 26
"""Rows of 30 pixels with gaps of 8 that a screen of 1080 shows below Grafana's own bars."""
_RANGE: Final = ("$__rate_interval", "1m")
"""The variable that Grafana sets from the screen's width, and a value for it."""

Panel = Mapping[str, Any]


def check() -> CheckResult:
    """Check every dashboard."""
    files = sorted((FOLDER / "dashboards").glob("*.json"))
    dashboards = {file.name: json.loads(file.read_text(encoding="utf-8")) for file in files}
    asked = [(name, panel["title"], expression) for name, board in dashboards.items() for panel, expression in queries(board)]
    wrong = [f"{name}: {sentence}" for name, board in dashboards.items() for sentence in findings(board, _datasource())]
    wrong += [f"{name}: {title}: {sentence}" for name, title, expression in asked for sentence in unknown_names(expression)]
    wrong += _syntax([expression for _, _, expression in asked])
    return CheckResult(f"{len(files)} dashboard, {len(asked)} queries", wrong)


def queries(board: Mapping[str, Any]) -> Iterator[tuple[Panel, str]]:
    """Yield each panel with each of its queries, with Grafana's variables replaced; annotations are yielded as panels of their own."""
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            yield panel, target["expr"].replace(*_RANGE)
    for annotation in board["annotations"]["list"]:
        yield {"title": f"annotation {annotation['name']}"}, annotation["expr"]


def findings(board: Mapping[str, Any], datasource: str) -> Iterator[str]:
    """Yield a sentence for each structural problem of `board`; `datasource` is the uid of the provisioned data source."""
    for key in ("uid", "title", "schemaVersion", "refresh"):
        if not board.get(key):
            yield f"{key} is missing"
    panels = board["panels"]
    numbers = [panel["id"] for panel in panels]
    if len(numbers) != len(set(numbers)):
        yield f"panels share an id: {numbers}"
    for panel in panels:
        for sentence in _panel(panel, datasource):
            yield f"{panel['title']}: {sentence}"
    yield from _layout(panels)


def _panel(panel: Panel, datasource: str) -> Iterator[str]:
    if panel["type"] == "row":
        return
    if not panel.get("description"):
        yield "the description is missing"
    if not panel["fieldConfig"]["defaults"].get("unit"):
        yield "the unit is missing"
    for holder in (panel, *panel["targets"]):
        if holder["datasource"] != {"type": "prometheus", "uid": datasource}:
            yield f"it queries data source {holder['datasource']}; the provisioned one is {datasource!r}"
    letters = [target["refId"] for target in panel["targets"]]
    if not letters or len(letters) != len(set(letters)):
        yield f"its queries are named {letters}; each needs its own letter"


def _layout(panels: list[Panel]) -> Iterator[str]:
    taken: dict[tuple[int, int], str] = {}
    for panel in panels:
        title: str = panel["title"]
        at = panel["gridPos"]
        if at["x"] + at["w"] > _COLUMNS or at["y"] + at["h"] > _SCREEN_ROWS:
            yield f"{title}: it exceeds one screen of {_COLUMNS} columns and {_SCREEN_ROWS} rows"
        cells = [(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])]
        if over := {taken[cell] for cell in cells if cell in taken}:
            yield f"{title}: it overlaps {', '.join(sorted(over))}"
        taken |= dict.fromkeys(cells, title)


def unknown_names(expression: str) -> list[str]:
    """Return a sentence for each metric or label of a query that does not exist."""
    return list(series.unknown_names(expression, series.known()))


def _syntax(expressions: list[str]) -> list[str]:
    """Return promtool's complaints about these expressions, each passed to it as a recording rule."""
    rules = [{"record": f"query:{number}", "expr": expression} for number, expression in enumerate(expressions)]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "queries.yml"
        file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}), encoding="utf-8")
        return problems(run("promtool", ["check", "rules", str(file)], install=_INSTALL))


def _datasource() -> str:
    file = FOLDER / "provisioning" / "datasources" / "prometheus.yml"
    uid: str = yaml.safe_load(file.read_text(encoding="utf-8"))["datasources"][0]["uid"]
    return uid
