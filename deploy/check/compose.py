"""Checks `docker-compose.yml` against Compose's schema and against rules for hardening, settings and start order."""

from __future__ import annotations

import importlib.util
import json
import os
import posixpath
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import jsonschema
from typer.testing import CliRunner

from deploy.check import composefile
from deploy.check.result import REPOSITORY, CheckResult
from services.cli.main import app as aquiline
from services.core.settings import SettingsError, load

_SCHEMA: Final = "check_jsonschema"
"""The distribution that carries a copy of the Compose specification's schema."""
_OURS: Final = "aquiline/"
_PINNED: Final = re.compile(r"^[a-z0-9./-]+:v?\d+\.\d+\.\d+[a-z0-9.-]*$")
_CONDITIONS: Final = {"service_healthy", "service_completed_successfully"}
_WORLD_WRITABLE: Final = {"/tmp", "/var/tmp"}  # noqa: S108 - folders of images, not of this machine
"""Every base image has these folders with mode 1777, which a tmpfs over them inherits."""
_IMAGE_VOLUMES: Final = {"apache/kafka": ("/etc/kafka/secrets", "/mnt/shared/config", "/var/lib/kafka/data"), "redis": ("/data",)}
"""`VOLUME`s that these images declare (`docker image inspect`): without a mount over it, each becomes an anonymous volume."""


def check() -> CheckResult:
    """Check every service of every profile."""
    file = composefile.load()
    return CheckResult(
        f"docker-compose.yml, {len(file.services)} services", [f"docker-compose.yml: {sentence}" for sentence in findings(file)]
    )


def findings(file: composefile.ComposeFile) -> list[str]:
    """Return a sentence for each problem of `file`."""
    return [*_schema(file), *_each(file), *_order(file)]


def _schema(file: composefile.ComposeFile) -> Iterator[str]:
    # The package is located without importing it: only its schema file is needed.
    spec = importlib.util.find_spec(_SCHEMA)
    assert spec is not None and spec.submodule_search_locations  # noqa: S101, PT018 - in the lock
    schema = json.loads((Path(spec.submodule_search_locations[0]) / "builtin_schemas" / "vendor" / "compose-spec.json").read_text())
    for error in jsonschema.validators.validator_for(schema)(schema).iter_errors(file.text):
        yield f"{'.'.join(str(part) for part in error.absolute_path)}: {error.message[:300]}"


def _each(file: composefile.ComposeFile) -> Iterator[str]:
    for name, service in file.services.items():
        problems = (
            _hardening(service),
            _exposure(service),
            _mounts(service, file.text["volumes"]),
            _tmpfs(service),
            _image_volumes(service),
            _variables(service),
            _own_image(service),
        )
        yield from (f"{name}: {sentence}" for sentences in problems for sentence in sentences)


def _hardening(service: Mapping[str, Any]) -> Iterator[str]:
    if not _PINNED.match(service["image"]):
        yield f"image {service['image']!r} is not pinned by a whole version, such as name:1.2.3"
    for key, wanted in {"read_only": True, "init": True, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true"]}.items():
        if service.get(key) != wanted:
            yield f"{key} is {service.get(key)!r} and must be {wanted!r}"
    for key in ("mem_limit", "pids_limit", "logging"):
        if key not in service:
            yield f"{key} is missing: without it, one service can exhaust the machine"
    if str(service.get("user", "0")).split(":")[0] in {"0", "root"}:
        yield f"user is {service.get('user')!r} and must be a number above 0"
    for key in sorted({"privileged", "cap_add", "devices", "pid", "ipc", "userns_mode"} & service.keys()):
        yield f"{key} is not allowed"


def _exposure(service: Mapping[str, Any]) -> Iterator[str]:
    for port in service.get("ports", []):
        if not str(port).startswith("127.0.0.1:"):
            yield f"port {port!r} is published beyond loopback; write 127.0.0.1:{port}"
    if not service.get("networks") and service.get("network_mode") != "none":
        yield "networks is missing: the default network reaches every service"


def _mounts(service: Mapping[str, Any], volumes: Mapping[str, Any]) -> Iterator[str]:
    for mount in service.get("volumes", []):
        if isinstance(mount, Mapping) and mount.get("type") == "tmpfs":
            continue  # `_tmpfs` checks these
        source, read_only = _mount(mount)
        if not source.startswith("."):
            if source not in volumes:
                yield f"volume {source!r} is not declared"
        elif not read_only:
            yield f"folder {source!r} of this machine is mounted writable; mount it read-only"
        elif not isinstance(mount, Mapping) and not (REPOSITORY / source).exists():
            yield f"{source!r} does not exist"


def _mount(mount: str | Mapping[str, Any]) -> tuple[str, bool]:
    if isinstance(mount, str):
        source, _, rest = mount.partition(":")
        return source, rest.endswith(":ro")
    return mount["source"], mount.get("read_only", False)


def _tmpfs(service: Mapping[str, Any]) -> Iterator[str]:
    """Yield in-memory folders that their service cannot write: a tmpfs belongs to root and inherits the mode of the image's folder."""
    user, _, group = str(service.get("user", "0")).partition(":")
    if user in {"0", "root"}:
        return
    entries = service.get("tmpfs", [])
    for entry in [entries] if isinstance(entries, str) else entries:
        folder, _, text = str(entry).partition(":")
        options = dict(option.partition("=")[::2] for option in text.split(","))
        wanted = {"uid": user, "gid": group or options.get("gid") or user}
        if posixpath.normpath(folder) not in _WORLD_WRITABLE and any(options.get(key) != value for key, value in wanted.items()):
            yield (
                f"tmpfs {entry!r} belongs to root, so user {service['user']} cannot write it; "
                f"write {folder}:uid={wanted['uid']},gid={wanted['gid']}"
            )
    for mount in service.get("volumes", []):
        if isinstance(mount, Mapping) and mount.get("type") == "tmpfs" and posixpath.normpath(mount["target"]) not in _WORLD_WRITABLE:
            yield (
                f"volume {mount['target']!r} of type tmpfs belongs to root and cannot name an owner; "
                f"write {mount['target']}:uid={user},gid={group or user} under `tmpfs` instead"
            )


def _image_volumes(service: Mapping[str, Any]) -> Iterator[str]:
    """Yield the image's volumes that nothing is mounted over: Docker makes them writable, despite `read_only`, and keeps them."""
    tmpfs = service.get("tmpfs", [])
    mounted = {str(entry).partition(":")[0] for entry in ([tmpfs] if isinstance(tmpfs, str) else tmpfs)}
    for mount in service.get("volumes", []):
        mounted.add(mount["target"] if isinstance(mount, Mapping) else mount.split(":")[1])
    for folder in _IMAGE_VOLUMES.get(service["image"].partition(":")[0], ()):
        if folder not in mounted:
            user, _, group = str(service["user"]).partition(":")
            yield f"{folder} is a volume of the image, and anonymous; write {folder}:ro,uid={user},gid={group or user} under `tmpfs`"


def _variables(service: Mapping[str, Any]) -> Iterator[str]:
    for name, value in service.get("environment", {}).items():
        if not isinstance(value, str):
            yield f"variable {name} is {value!r}, which YAML parsed; write it in quotes"
        if re.search(r"PASSWORD|API_KEY|TOKEN$|SECRET$", name):
            yield f"variable {name} holds a secret; secrets are read from files"


def _own_image(service: Mapping[str, Any]) -> Iterator[str]:
    if not service["image"].startswith(_OURS):
        return
    if "build" not in service:
        yield "build is missing, and the image is not published anywhere"
    elif not (REPOSITORY / service["build"]["dockerfile"]).is_file():
        yield f"{service['build']['dockerfile']} does not exist"
    yield from _command(*composefile.split_command(service["command"]))
    with tempfile.TemporaryDirectory() as secrets, _environment(service.get("environment", {}), secrets):
        try:
            load()
        except SettingsError as error:
            yield f"environment: {error}"


@cache
def _command(*words: str) -> tuple[str, ...]:
    match words:
        case ["python", "-m", module, *_] if importlib.util.find_spec(module) is not None:
            return ()
        case ["aquiline", *rest]:
            # Options are validated before --help, and nothing runs.
            result = CliRunner().invoke(aquiline, [*rest, "--help"])
            return () if result.exit_code == 0 else (f"command {[*words]}: {' '.join(re.sub('[^ -~]', ' ', result.output).split())}",)
        case _:
            return (f"command {[*words]} is neither `python -m` with an importable module nor an `aquiline` command",)


@contextmanager
def _environment(variables: Mapping[str, str], secrets: str) -> Iterator[None]:
    """Set only these variables, with an existing folder in place of the container's folder of secrets."""
    set_here = {name: value for name, value in variables.items() if isinstance(value, str)}
    with patch.dict(os.environ, set_here | ({"AQUILINE_SECRETS_DIR": secrets} if "AQUILINE_SECRETS_DIR" in set_here else {}), clear=True):
        yield


def _order(file: composefile.ComposeFile) -> Iterator[str]:
    services = file.services
    for name, service in services.items():
        job = service.get("restart", "").startswith("on-failure")
        if not job and "healthcheck" not in service:
            yield f"{name}: healthcheck is missing"
        for other, how in service.get("depends_on", {}).items():
            if other not in services:
                yield f"{name}: depends_on names {other}, which is not a service"
                continue
            condition = how.get("condition")
            if condition not in _CONDITIONS:
                yield f"{name}: depends_on {other} with {condition!r}, which does not say that it works; use one of {sorted(_CONDITIONS)}"
            if condition == "service_healthy" and "healthcheck" not in services[other]:
                yield f"{name}: depends_on {other} to be healthy, which has no healthcheck"
            if condition == "service_completed_successfully" and services[other].get("restart") == "unless-stopped":
                yield f"{name}: depends_on {other} to complete, which restarts whenever it does"
            elsewhere = set(services[other].get("profiles", [])) and services[other].get("profiles") != service.get("profiles")
            if elsewhere and how.get("required", True):
                yield f"{name}: depends_on {other}, which has another profile; write required: false"
    try:
        composefile.in_order(services)
    except ValueError as error:
        yield str(error)
