"""A server as a child process on loopback that ends with its owner, however the owner ends: the simulator and the local engine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from services.core.errors import ServiceError

_ROOT: Final = Path(__file__).parents[2]
_LAST_LINES: Final = 5


class ServerStartError(ServiceError):
    """A server did not start; the message says why."""


class ChildServer:
    """`python -m MODULE --tied --port PORT OPTIONS…`, which serves once it prints `LISTENING` and its address."""

    def __init__(self, module: str, options: Sequence[str], *, listening: str, ready_s: float, port: int = 0) -> None:
        """Start nothing yet. It has `ready_s` seconds to start; port 0 takes any free one."""
        self.url = ""
        self._command = (sys.executable, "-m", module, "--tied", *options)
        self._listening = listening
        self._ready_s = ready_s
        self._port = port
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start, on the port of the last time, and return once it serves; raise ServerStartError."""
        self._process = process = await asyncio.create_subprocess_exec(
            *self._command,
            *("--port", str(self._port)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))},
            # Ctrl-C reaches the owner alone, which may still need the server.
            start_new_session=True,
        )
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        lines = [""]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._ready_s):
                while not lines[-1].startswith(self._listening) and (line := await process.stdout.readline()):
                    lines = [*lines[-_LAST_LINES:], line.decode(errors="replace").strip()]
        if not lines[-1].startswith(self._listening):
            await self.kill()
            raise ServerStartError(f"{self._command[2]} did not start; its last output is: {' / '.join(filter(None, lines)) or 'nothing'}")
        self.url = lines[-1].removeprefix(self._listening)
        self._port = int(self.url.rpartition(":")[2])
        self._drain = asyncio.create_task(_drain(process.stdout), name=f"output of {self._command[2]}")

    async def ended(self) -> int:
        """Return the exit status once the process has ended."""
        assert self._process is not None  # noqa: S101 - start came first
        return await self._process.wait()

    async def kill(self) -> None:
        """End it as a crash would, cutting every call in flight."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def call_at_end_of_stdin(stop: Callable[[], None]) -> None:
    """Call `stop` when standard input ends, from a thread: what `--tied` means in a child."""

    def wait() -> None:
        sys.stdin.buffer.read()
        stop()

    threading.Thread(target=wait, daemon=True).start()


async def _drain(output: asyncio.StreamReader) -> None:
    """Read what the process writes, or it would stop at a full pipe."""
    while await output.read(1 << 16):
        pass
