"""One Compose project of `docker-compose.yml` on a real Docker Engine, under a name of its own, driven as a person drives it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from deploy.check.result import REPOSITORY

PATIENCE_S: Final = 240.0
_LOOK_S: Final = 1.0
_EVENTS: Final = ("start", "die", "health_status")


class ComposeError(Exception):
    """A command of Compose failed; the text is the end of what it printed, and the state of each container."""


def say(text: str) -> None:
    """Print a line of progress."""
    sys.stderr.write(f"containers {time.strftime('%H:%M:%S')}: {text}\n")
    sys.stderr.flush()


def until(holds: Callable[[], bool], what: str, *, patience_s: float = PATIENCE_S, told: Callable[[], object] = lambda: "") -> None:
    """Return once `holds` does; raise AssertionError naming `what`, and what `told` says, after `patience_s` seconds."""
    end = time.monotonic() + patience_s
    while not holds():
        if time.monotonic() > end:
            raise AssertionError(f"waited {patience_s:.0f} s in vain for: {what}. {told()}")
        time.sleep(_LOOK_S)


class Project:
    """A project on the engine that `variables` name. `overlays` are Compose files that are merged over the repository's."""

    def __init__(
        self, name: str, variables: Mapping[str, str], profiles: Sequence[str] = ("default",), overlays: Sequence[Path] = ()
    ) -> None:
        """Prepare; nothing runs yet."""
        self.name = name
        self._environment = {**os.environ, **variables, "TRACES": "false"}
        files = [REPOSITORY / "docker-compose.yml", *overlays]
        self._compose = ["docker", "compose", "--project-name", name, "--project-directory", str(REPOSITORY)]
        self._compose += [word for file in files for word in ("--file", str(file))]
        self.overlays = tuple(overlays)
        self._profiles = [word for profile in profiles for word in ("--profile", profile)]

    # --- Commands ---------------------------------------------------------------------------------------------------------------

    def compose(self, *arguments: str, check: bool = True, timeout_s: float = 900.0) -> subprocess.CompletedProcess[str]:
        """Run `docker compose ARGUMENTS`; raise ComposeError when it fails."""
        command = [*self._compose, *self._profiles, *arguments]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False, timeout=timeout_s)
        if check and done.returncode != 0:
            raise ComposeError(f"docker compose {' '.join(arguments)} failed:\n{(done.stdout + done.stderr)[-2_000:]}\n{self.states()}")
        return done

    def docker(self, *arguments: str, check: bool = True) -> str:
        """Run `docker ARGUMENTS` and return what it prints."""
        done = subprocess.run(["docker", *arguments], env=self._environment, capture_output=True, text=True, check=False)  # noqa: S607 - the one on PATH
        if check and done.returncode != 0:
            raise ComposeError(f"docker {' '.join(arguments)} failed: {done.stderr[-1_000:]}")
        return done.stdout

    def execute(self, service: str, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in the service's container."""
        return self.compose("exec", "--no-TTY", service, *command, check=check)

    def up(self, *services: str, timeout_s: float = PATIENCE_S) -> None:
        """Start services, all when none is named.

        Returns once all are healthy, or have ended well if jobs; raises ComposeError when one is not, or not in time.
        """
        waiting = ("--wait", "--wait-timeout", str(round(timeout_s)))
        self.compose("up", "--detach", "--no-build", *waiting, *services, timeout_s=2 * timeout_s)

    def down(self, *, volumes: bool = False) -> None:
        """End and delete the containers, and with `volumes` their data."""
        self.compose("--profile", "*", "down", "--remove-orphans", *(["--volumes"] if volumes else []))

    # --- What is there ----------------------------------------------------------------------------------------------------------

    def containers(self) -> dict[str, dict[str, Any]]:
        """Return what `docker inspect` says of each container, by service."""
        ids = self.docker("ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={self.name}").split()
        inspected = json.loads(self.docker("inspect", *ids)) if ids else []
        return {container["Config"]["Labels"]["com.docker.compose.service"]: container for container in inspected}

    def states(self) -> str:
        """Return a line for each container and the end of the logs of those that are not well, for people."""
        lines = []
        for service, container in self.containers().items():
            state = container["State"]
            health = state.get("Health", {}).get("Status", "no health check")
            lines.append(
                f"{service}: {state['Status']}, exit code {state['ExitCode']}, {health}, restarted {container['RestartCount']} times"
            )
            if not _is_well(container):
                lines.append(self._log(container["Id"]))
        return "\n".join(lines)

    def _log(self, container: str) -> str:
        command = ["docker", "logs", "--tail", "10", container]
        both = subprocess.run(command, env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        return both.stdout[-1_500:]

    def record_events(self, file: Path) -> subprocess.Popen[bytes]:
        """Write the containers' events to `file`, a JSON object a line, until the process that is returned ends."""
        filters = [f"--filter=event={event}" for event in _EVENTS] + [f"--filter=label=com.docker.compose.project={self.name}"]
        with file.open("wb") as out:
            return subprocess.Popen(["docker", "events", "--format", "{{json .}}", *filters], env=self._environment, stdout=out)  # noqa: S607


def _is_well(container: Mapping[str, Any]) -> bool:
    state = container["State"]
    if "Health" in state:
        return bool(state["Health"]["Status"] == "healthy")
    job = container["HostConfig"]["RestartPolicy"]["Name"] == "on-failure"
    return bool(state["Status"] == "exited" and state["ExitCode"] == 0) if job else bool(state["Status"] == "running")
