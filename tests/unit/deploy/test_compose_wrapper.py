"""`make up` and `make down`: the command that Docker Compose is given, and what is said where there is none."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from deploy.check.result import REPOSITORY

WRAPPER = REPOSITORY / "deploy" / "setup" / "compose"


def run(folder: Path, *arguments: str, version: str | None = "2.39.1") -> tuple[int, list[str], str]:
    """Run the wrapper with a `docker` that notes what it is told; return exit status, calls and standard error."""
    calls = folder / "calls"
    if version is not None:
        docker = folder / "docker"
        docker.write_text(f'#!/bin/sh\nif [ "$2" = version ]; then echo {version}; else echo "TRACES=$TRACES $*" >> {calls}; fi\n')
        docker.chmod(0o755)
    done = subprocess.run(
        [WRAPPER, *arguments], env={"PATH": f"{folder}:/usr/bin:/bin"}, capture_output=True, text=True, check=False, timeout=30
    )
    return done.returncode, calls.read_text().splitlines() if calls.exists() else [], done.stderr


@pytest.mark.parametrize(
    ("arguments", "call"),
    [
        (["up"], "TRACES= compose --profile default up --build --detach"),
        (["up", "gpu"], "TRACES= compose --profile gpu up --build --detach"),
        (["up", "local"], "TRACES= compose --profile local up --build --detach"),
        (["up", "observability"], "TRACES=true compose --profile default --profile observability up --build --detach"),
        (["up", "gpu", "observability"], "TRACES=true compose --profile gpu --profile observability up --build --detach"),
        (["down"], "TRACES= compose --profile * down --remove-orphans"),
        (["down", "--volumes"], "TRACES= compose --profile * down --remove-orphans --volumes"),
    ],
)
def test_profiles_and_options_reach_compose(arguments: list[str], call: str, tmp_path: Path) -> None:
    assert run(tmp_path, *arguments)[:2] == (0, [call])


@pytest.mark.parametrize(
    ("arguments", "version", "named"),
    [
        (["up"], None, "make up-local"),
        (["up"], "2.19.1", "this is 2.19.1"),
        (["up", "gpuu"], "2.39.1", "unknown profile 'gpuu'"),
        (["up", "default", "gpu"], "2.39.1", "choose one"),
        (["up", "local", "default"], "2.39.1", "choose one"),
        (["up", "gpu", "local"], "2.39.1", "choose one"),
    ],
)
def test_what_is_missing_is_said_and_nothing_started(arguments: list[str], version: str | None, named: str, tmp_path: Path) -> None:
    status, calls, said = run(tmp_path, *arguments, version=version)
    assert (status, calls, named in said) == (1, [], True), said
