"""Reads `docker-compose.yml` as Compose does: `.env`, `${NAME:-default}`, anchors and profiles."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from deploy.check.result import REPOSITORY

FILE: Final = REPOSITORY / "docker-compose.yml"
_VARIABLE: Final = re.compile(r"\$\{(?P<name>[A-Z_]+)(?::-(?P<default>[^}]*))?\}")


@dataclass(frozen=True, slots=True)
class ComposeFile:
    """The parsed file. `services` holds the services of all profiles."""

    text: Mapping[str, Any]

    @property
    def services(self) -> Mapping[str, Mapping[str, Any]]:
        """Return each service by name."""
        found: Mapping[str, Mapping[str, Any]] = self.text["services"]
        return found

    def of_profiles(self, *profiles: str) -> dict[str, Mapping[str, Any]]:
        """Return the services that these profiles start; services without a profile always start."""
        return {name: one for name, one in self.services.items() if not one.get("profiles") or set(one["profiles"]) & set(profiles)}


def load(file: Path = FILE) -> ComposeFile:
    """Return the file with its variables replaced by the values of the `.env` beside it, or by their defaults."""
    variables = dict(
        line.split("=", 1) for line in file.with_name(".env").read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")
    )

    def fill(match: re.Match[str]) -> str:
        value: str = variables.get(match["name"], match["default"])
        return value

    return ComposeFile(yaml.safe_load(_VARIABLE.sub(fill, file.read_text(encoding="utf-8"))))


def dependencies(service: Mapping[str, Any], among: Mapping[str, Any]) -> dict[str, str]:
    """Return the services of `among` that `service` waits for before it starts, each with its condition."""
    return {name: how["condition"] for name, how in service.get("depends_on", {}).items() if name in among}


def in_order(services: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the names in start order, each after its dependencies; raise ValueError on a cycle."""
    ordered: list[str] = []
    while len(ordered) < len(services):
        ready = [name for name, one in services.items() if name not in ordered and not set(dependencies(one, services)) - set(ordered)]
        if not ready:
            raise ValueError(f"services {', '.join(sorted(set(services) - set(ordered)))} depend on each other in a cycle")
        ordered += ready
    return ordered


def split_command(value: str | Sequence[str]) -> list[str]:
    """Return a command as Compose splits it."""
    import shlex  # noqa: PLC0415 - only strings need it

    return shlex.split(value) if isinstance(value, str) else [str(word) for word in value]
