"""Starts the local engine as a process that ends with its owner: for the demo, for tests, and for `aquiline engine local`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from services.inference.local.__main__ import LISTENING, THREADS
from services.inference.local.weights import LocalEngineError, Weights

_READY_S: Final = 120.0
_ROOT: Final = Path(__file__).parents[3]


class LocalEngine:
    """llama.cpp's server with the local model, on loopback."""

    def __init__(
        self,
        weights: Weights,
        *,
        symbols: int,
        ahead: bool = True,
        context_tokens: int | None = None,
        threads: int = THREADS,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        """Prepare to serve `symbols` symbols: each has a slot for its prompt and, with `ahead`, one for the prefix that is sent ahead.

        `context_tokens` is the longest prompt with its answer, the model's own when absent; a slot takes 23 KB of memory a token.
        """
        self.url = ""
        self._options = [
            *("--model", str(weights.gguf), "--alias", weights.model, "--host", host),
            *("--slots", str(slots_for(symbols, ahead=ahead)), "--context", str(context_tokens or weights.context_tokens)),
            *("--threads", str(threads)),
        ]
        self._port = port
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start, on the port of the last time, and return once the model is loaded; raise LocalEngineError."""
        command = [sys.executable, "-m", "services.inference.local", "--tied", "--port", str(self._port), *self._options]
        self._process = process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))},
            # Ctrl-C is its owner's to answer.
            start_new_session=True,
        )
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        lines: list[str] = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_READY_S):
                while not _listens(lines) and (line := await process.stdout.readline()):
                    lines = [*lines[-5:], line.decode(errors="replace").strip()]
        if not _listens(lines):
            await self.kill()
            raise LocalEngineError(f"the local engine did not start; it last wrote: {' / '.join(lines) or 'nothing'}")
        self.url = lines[-1].removeprefix(LISTENING)
        self._port = int(self.url.rpartition(":")[2])
        self._drain = asyncio.create_task(_drain(process.stdout), name="local engine's output")

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


def slots_for(symbols: int, *, ahead: bool = True) -> int:
    """Return how many slots a server needs for `symbols` symbols: one each and one for probes, and with `ahead` one more each."""
    return (2 if ahead else 1) * symbols + 1


def _listens(lines: Sequence[str]) -> bool:
    return bool(lines) and lines[-1].startswith(LISTENING)


async def _drain(output: asyncio.StreamReader) -> None:
    """Keep the process from stopping at a full pipe."""
    while await output.read(1 << 16):
        pass
