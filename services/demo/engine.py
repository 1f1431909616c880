"""The simulator as a process of the demo's own, which can be killed and brought back at the same address: the labelled outage."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path
from typing import Final, Protocol

_READY_S: Final = 30.0
_LISTENING: Final = "simulator listening on "
_ROOT: Final = Path(__file__).parents[2]


class EngineStartError(Exception):
    """The simulator did not start; the text holds the end of what it wrote."""


class EngineProcess(Protocol):
    """What the demo asks of an engine that it may stop."""

    async def kill(self) -> None:
        """End it as a crash would."""
        ...

    async def start(self) -> None:
        """Bring it back at the same address."""
        ...


class SimulatorProcess:
    """`python -m services.inference.simulator` on loopback. It ends with the demo, however that ends."""

    def __init__(self, *, seed: int, time_scale: float) -> None:
        """`time_scale` 1 is as fast as the GPU that was measured, 0 waits for nothing."""
        self.url = ""
        self._options = ("--seed", str(seed), "--time-scale", str(time_scale))
        self._port = 0
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start, on the port of the last time, and return once it listens; raise EngineStartError."""
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            _TIED,
            "--port",
            str(self._port),
            *self._options,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))},
            # Ctrl-C is the demo's to answer: it drains first.
            start_new_session=True,
        )
        said = ""
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_READY_S):
                while not said.startswith(_LISTENING) and (line := await process.stdout.readline()):
                    said = line.decode(errors="replace").strip()
        if not said.startswith(_LISTENING):
            await self.kill()
            raise EngineStartError(f"the simulator did not start; it last said: {said or 'nothing'}")
        self.url = said.removeprefix(_LISTENING)
        self._port = int(self.url.rpartition(":")[2])

    async def kill(self) -> None:
        """End it as a crash would, cutting every call in flight."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


_TIED: Final = """
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.buffer.read(), os._exit(0)), daemon=True).start()
from services.inference.simulator.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
"""The simulator, and a thread that ends it when the demo's end of its stdin closes."""
