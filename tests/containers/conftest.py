"""A Docker Engine, Compose, base images and our own image: what the machine has, else made once and kept in `.cache/containers`.

`make test-containers` runs these tests; other runs of pytest leave them out, as they take minutes and ports that people use.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from deploy.check import composefile
from deploy.containers.base_images import BaseImages, base_images
from deploy.containers.compose_plugin import docker_config
from deploy.containers.engine import PrivateEngine, docker_engine
from deploy.local.process import free_port
from tests.containers.project import Project, say
from tests.stored import store

collect_ignore_glob = [] if os.environ.get("CONTAINERS") == "1" else ["test_*.py"]

_PROFILES = ("default", "observability")


@dataclass(slots=True)
class Docker:
    """An engine with every image that can be had."""

    variables: dict[str, str]
    private: PrivateEngine | None
    stand_ins: list[str]
    lacking: list[str]
    figures: dict[str, Any] = field(default_factory=dict)


@pytest.fixture(scope="session")
def docker(request: pytest.FixtureRequest) -> Iterator[Docker]:
    started = time.monotonic()
    with docker_engine() as (host, private):
        say("a Docker Engine of its own was started, as none answered" if private else "the machine's Docker Engine is used")
        say("looking for Compose; building it the first time takes some minutes")
        variables = {**host, **docker_config()}
        images = BaseImages(variables, may_stand_in=private is not None, progress=say)
        services = composefile.load().of_profiles(*_PROFILES).values()
        stand_ins, lacking = images.provide(base_images(services))
        provided_s = time.monotonic() - started
        project = Project("aquiline-image", variables)
        say("building our image")
        began = time.monotonic()
        project.compose("build", "fusion")
        built_s = time.monotonic() - began
        size = int(project.docker("image", "inspect", "--format", "{{.Size}}", "aquiline/services:0.1.0"))
        base = int(project.docker("image", "inspect", "--format", "{{.Size}}", stand_ins[0])) if stand_ins else 0
        say(f"the image has {size / 1e6:.0f} MB, and was built in {built_s:.0f} s")
        docker = Docker(variables, private, stand_ins, lacking)
        docker.figures = {
            "engine_compose_and_base_images_s": round(provided_s, 1),
            "build_s": round(built_s, 1),
            "image_mb": round(size / 1e6),
            "of_which_base_mb": round(base / 1e6),
        }
        yield docker
        say(f"stand-ins: {', '.join(stand_ins) or 'none'}; not to be had: {', '.join(lacking) or 'none'}")
        failed = request.session.testsfailed
        figures = {
            **docker.figures,
            "tests": request.session.testscollected,
            "failed": failed,
            "took_s": round(time.monotonic() - started, 1),
        }
        store(
            "containers",
            "cached" if built_s + provided_s < 60 else "first",
            {**figures, "stand_ins": ", ".join(stand_ins), "not_to_be_had": ", ".join(lacking)},
        )


@pytest.fixture(scope="session")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of the containers' events since the stack's start."""
    return tmp_path_factory.mktemp("events") / "events.jsonl"


@pytest.fixture(scope="session")
def stack(docker: Docker, events: Path) -> Iterator[Project]:
    """Return the running profile `default`, started from nothing."""
    overlay = _free_ports(events.with_name("ports.yml"))
    project = Project("aquiline-test", docker.variables, overlays=overlay)
    project.down(volumes=True)
    recorder = project.record_events(events)
    try:
        began = time.monotonic()
        say("starting profile default")
        project.up()
        docker.figures["up_s"] = round(time.monotonic() - began, 1)
        say(f"everything is healthy after {docker.figures['up_s']:.0f} s")
        yield project
    finally:
        recorder.terminate()
        recorder.wait()
        project.down(volumes=True)


def _free_ports(overlay: Path) -> list[Path]:
    """Return an overlay that publishes ports which are in use here on free ones instead; none where all are free."""
    moved = []
    for name, service in composefile.load().of_profiles(*_PROFILES).items():
        for published in service.get("ports", []):
            address, port, target = published.split(":")
            with socket.socket() as probe:
                if probe.connect_ex((address, int(port))) != 0:
                    continue
            assert name != "kafka", f"port {port} is in use here, and the broker tells clients this address; free it"
            say(f"port {port} of {name} is in use here; a free one is published")
            moved.append(f'  {name}:\n    ports: !override ["{address}:{free_port()}:{target}"]\n')
    if not moved:
        return []
    overlay.write_text("services:\n" + "".join(moved))
    return [overlay]
