"""Faults that were found by hand once, or could be: each makes a start fail, so that a stack that starts has none of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers.conftest import Docker
from tests.containers.project import ComposeError, Project, say

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

_QUICK_CHECK = "interval: 1s, timeout: 2s, start_period: 5s, retries: 3"
_FAULTS = {
    "a tmpfs without an owner": (
        f"""
services:
  kafka:
    ports: !reset []
    tmpfs: !override [/tmp, /opt/kafka/config, /opt/kafka/logs, "/etc/kafka/secrets:ro", "/mnt/shared/config:ro"]
    healthcheck: {{{_QUICK_CHECK}}}
""",
        "kafka",
        r"kafka: .*config/? (is|file) not writable",
    ),
    "a health check that asks another port": (
        f"""
services:
  redis:
    healthcheck:
      test: [CMD-SHELL, "redis-cli -p 6380 ping | grep -q NOAUTH"]
      {_QUICK_CHECK.replace(", ", chr(10) + "      ")}
""",
        "redis",
        r"redis: running, exit code 0, unhealthy",
    ),
    "a network that is missing": (
        """
services:
  kafka:
    ports: !reset []
  topics:
    restart: "no"
    networks: !override [cache]
  market: {}
""",
        "market",
        r"topics: exited, exit code [1-9]",
    ),
}


@pytest.fixture(params=list(_FAULTS))
def faulty(request: pytest.FixtureRequest, docker: Docker, tmp_path: Path) -> Iterator[tuple[Project, str, str]]:
    text, service, reason = _FAULTS[request.param]
    overlay = tmp_path / "fault.yml"
    overlay.write_text(text)
    project = Project("aquiline-fault", docker.variables, overlays=[overlay])
    began = time.monotonic()
    yield project, service, reason
    project.down(volumes=True)
    say(f"{time.monotonic() - began:4.0f} s  {request.param} makes the start fail")


def test_a_start_with_a_planted_fault_fails_for_that_reason(faulty: tuple[Project, str, str]) -> None:
    project, service, reason = faulty
    with pytest.raises(ComposeError, match=f"(?s){reason}"):
        project.up(service, timeout_s=60)
