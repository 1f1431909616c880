"""Docker Compose as the machine's plug-in, or built once from its Go module and kept."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from deploy.containers.engine import CACHE
from deploy.local.process import LocalError, MissingError

_MODULE: Final = "github.com/docker/compose/v2"
_VERSION: Final = "v2.40.3"
_SUM: Final = "h1:XeYkQu1svDtyfZPv5nTwFryQ25ZJMkIlc4pz9HalMPI="
"""Of the module, as Go's checksum database has it."""
_OLDEST: Final = (2, 20)
"""Older ones do not know `required: false`."""


def docker_config() -> dict[str, str]:
    """Return the variables with which `docker compose` is a usable Compose, building it if necessary; raise LocalError when that fails."""
    if _is_usable({}):
        return {}
    folder = CACHE / "docker-config"
    plugin = folder / "cli-plugins" / "docker-compose"
    variables = {"DOCKER_CONFIG": str(folder)}
    if not (plugin.is_file() and _is_usable(variables)):
        plugin.parent.mkdir(parents=True, exist_ok=True)
        _build(plugin)
    return variables


def _is_usable(variables: dict[str, str]) -> bool:
    version = _run(["docker", "compose", "version", "--short"], variables)
    if version.returncode != 0:
        return False
    major, minor, *_ = version.stdout.strip().removeprefix("v").split(".")
    return (int(major), int(minor)) >= _OLDEST


def _build(plugin: Path) -> None:
    if shutil.which("go") is None:
        raise MissingError(
            f"Docker has no Compose plug-in, and building {_MODULE} {_VERSION} needs Go, which is not installed; install one of them"
        )
    with tempfile.TemporaryDirectory() as scratch:
        # Outside of any module, so that no go.mod decides.
        fetched = _run(["go", "mod", "download", "-json", f"{_MODULE}@{_VERSION}"], {"GO111MODULE": "on"}, Path(scratch))
        if fetched.returncode != 0:
            raise LocalError(f"Go cannot fetch {_MODULE} {_VERSION}: {(fetched.stderr + fetched.stdout)[-1_000:]}")
        module = json.loads(fetched.stdout)
        if module["Sum"] != _SUM:
            raise LocalError(f"{_MODULE} {_VERSION} has the checksum {module['Sum']}, expected {_SUM}")
        # The module names replacements, which only count where it is the main one.
        source = Path(scratch) / "source"
        shutil.copytree(module["Dir"], source)
        for path in (source, *source.rglob("*")):
            path.chmod(path.stat().st_mode | 0o200)
        partial = plugin.with_suffix(".partial")
        link = f"-s -w -X {_MODULE}/internal.Version={_VERSION}"
        command = ["go", "build", "-mod=mod", "-buildvcs=false", "-trimpath", "-ldflags", link, "-o", str(partial), "./cmd"]
        built = _run(command, {"CGO_ENABLED": "0"}, source)
        if built.returncode != 0:
            raise LocalError(f"Go cannot build {_MODULE} {_VERSION}: {built.stderr[-1_000:]}")
        partial.rename(plugin)


def _run(command: list[str], variables: dict[str, str], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, env={**os.environ, **variables}, capture_output=True, text=True, check=False)  # noqa: S603
