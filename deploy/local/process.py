"""One server process on loopback: start, wait until it serves, stop, kill, restart on the same port.

The server ends with the process that started it unless it is detached. Its pid is stored in its folder, so that another process can
stop it later.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

_STOP_S: Final = 20.0
_POLL_S: Final = 0.02
_GUARDED: Final = """
exec 3<&0
(read -r _ <&3 && exit; [ "$(readlink "/proc/$$/cwd")" = "$PWD" ] && kill -9 $$) &
exec "$@" 3<&- </dev/null
"""
"""A shell that becomes the server and leaves a guard process, which kills the server when stdin closes without a line.

The kernel's parent-death signal does not serve: it is sent when the thread that started the server ends, such as an event loop's.
"""


class LocalError(Exception):
    """A local server cannot run; the message says what to do."""


class MissingError(LocalError):
    """A program that a local server needs is not installed and cannot be fetched."""


def free_port() -> int:
    """Return a TCP port on loopback that is not in use."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class LocalServer(ABC):
    """A server in a folder of its own, which holds its data, configuration, log and pid."""

    name: str
    start_timeout_s: float = 60.0

    def __init__(self, folder: Path, *, port: int | None, detached: bool) -> None:
        """Choose a free port unless `port` is given; a `detached` server outlives this process."""
        self.folder = folder.absolute()
        self.port = port or free_port()
        self._detached = detached
        self._child: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """Return the address as the settings take it."""

    @property
    def log_file(self) -> Path:
        """Return where the server's output goes."""
        return self.folder / f"{self.name}.log"

    @property
    def pid(self) -> int | None:
        """Return the running server's pid, or None."""
        if self._child is not None:
            return self._child.pid if self._child.poll() is None else None
        return running_pid(self.folder, self.name)

    def start(self) -> Self:
        """Start and return once it serves; raise LocalError with the end of its log when it doesn't."""
        if self.pid is not None:
            return self
        self._release_guard()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._prepare()
        guard = [] if self._detached else ["/bin/sh", "-c", _GUARDED, self.name]
        with self.log_file.open("wb") as log:
            self._child = subprocess.Popen(  # noqa: S603 - the command is ours
                [*guard, *self._command()],
                cwd=self.folder,
                env={**os.environ, **self._environment()},
                stdin=subprocess.DEVNULL if self._detached else subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        (self.folder / f"{self.name}.pid").write_text(str(self._child.pid))
        self._wait_until_serving()
        return self

    def stop(self) -> None:
        """Send SIGTERM and wait until the server has ended."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL, as a crash would end it. Its data stay."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop and start on the same port with the same data."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Send SIGSTOP: its threads stop and its connections stay open, as on an overloaded machine."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Send SIGCONT, which ends `freeze`."""
        self._signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _signal(self, number: signal.Signals) -> None:
        if (pid := self.pid) is None:
            raise LocalError(f"{self.name} is not running in {self.folder}; start it first")
        os.kill(pid, number)

    def _end(self, number: signal.Signals) -> None:
        pid = self.pid
        if pid is not None:
            os.kill(pid, number)
            os.kill(pid, signal.SIGCONT)
            until = time.monotonic() + _STOP_S
            while self.pid is not None:
                if time.monotonic() > until:
                    os.kill(pid, signal.SIGKILL)
                time.sleep(_POLL_S)
        self._release_guard()
        (self.folder / f"{self.name}.pid").unlink(missing_ok=True)

    def _release_guard(self) -> None:
        """Release the guard: the server has ended, and its pid may be reused."""
        if self._child is not None and self._child.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._child.stdin.write(b"\n")
                self._child.stdin.flush()
            self._child.stdin.close()
        self._child = None

    def _wait_until_serving(self) -> None:
        until = time.monotonic() + self.start_timeout_s
        while not self._serves():
            late = time.monotonic() > until
            if late or self.pid is None:
                tail = self.log_file.read_text(errors="replace")[-2_000:]
                self.kill()
                why = f"did not serve within {self.start_timeout_s:.0f} s" if late else "ended while starting"
                raise LocalError(f"{self.name} {why} on port {self.port}; the end of {self.log_file}:\n{tail}")
            time.sleep(_POLL_S)

    def _accepts(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1.0)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _environment(self) -> Mapping[str, str]:
        return {}

    @abstractmethod
    def _prepare(self) -> None:
        """Write the files that the server reads at its start."""

    @abstractmethod
    def _command(self) -> list[str]:
        """Return the server's command line."""

    @abstractmethod
    def _serves(self) -> bool:
        """Return True once it answers."""


def running_pid(folder: Path, name: str) -> int | None:
    """Return the pid in `folder` while that process runs, else None.

    The system reuses pids, so the process must also have the folder as its working directory.
    """
    try:
        pid = int((folder / f"{name}.pid").read_text())
        here = Path(f"/proc/{pid}/cwd").readlink() == folder.absolute()
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, ValueError):
        return None
    return pid if here and state != "Z" else None
