"""The profile `observability` beside a running stack, as far as its images can be had."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import pytest

from tests.containers.conftest import Docker
from tests.containers.project import Project, say, until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

_JOBS = {"market", "vision", "fusion", "scoring", "engine"}
_SERVICES = {"prometheus": "prom/prometheus", "grafana": "grafana/grafana", "collector": "otel/opentelemetry-collector"}


def test_prometheus_scrapes_every_service_and_evaluates_every_rule(stack: Project, docker: Docker) -> None:
    wanted = [name for name, image in _SERVICES.items() if not any(one.startswith(image) for one in docker.lacking)]
    assert "prometheus" in wanted
    say(f"starting {', '.join(wanted)} of profile observability")
    project = Project(stack.name, docker.variables, profiles=("default", "observability"), overlays=stack.overlays)
    project.up(*wanted)
    (published,) = project.containers()["prometheus"]["NetworkSettings"]["Ports"]["9090/tcp"]

    def api(path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{published['HostPort']}/api/v1/{path}", timeout=10) as answer:
            return json.load(answer)["data"]

    until(
        lambda: {one["labels"]["job"] for one in api("targets")["activeTargets"] if one["health"] == "up"} >= _JOBS,
        "every service to be scraped",
        told=lambda: [(one["labels"]["job"], one["health"], one["lastError"]) for one in api("targets")["activeTargets"]],
    )
    until(
        lambda: all(rule["health"] == "ok" for group in api("rules")["groups"] for rule in group["rules"]),
        "every rule to be evaluated",
        told=lambda: [rule for group in api("rules")["groups"] for rule in group["rules"] if rule["health"] != "ok"],
    )
    assert api("query?query=sum(aquiline_outcomes_total)")["result"][0]["value"][1] != "0"
