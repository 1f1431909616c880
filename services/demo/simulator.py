"""The simulator as a child process that the demo can kill and restart at the same address: the engine outage."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path
from typing import Final

_READY_S: Final = 30.0
_LISTENING: Final = "simulator listening on "
_ROOT: Final = Path(__file__).parents[2]
_CHILD: Final = """
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.buffer.read(), os._exit(0)), daemon=True).start()
from services.inference.simulator.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
"""The simulator with a thread that ends it when its stdin closes, which happens however the demo ends."""


class EngineStartError(Exception):
    """The simulator did not start; the message holds the last line of its output."""


class SimulatorProcess:
    """`python -m services.inference.simulator` on loopback; it never outlives the demo."""

    def __init__(self, *, seed: int, time_scale: float) -> None:
        """`time_scale` 1 is the speed of the measured GPU, 0 answers at once."""
        self.url = ""
        self._options = ("--seed", str(seed), "--time-scale", str(time_scale))
        self._port = 0
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start, on the same port as before, and return once it listens; raise EngineStartError."""
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            _CHILD,
            "--port",
            str(self._port),
            *self._options,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))},
            # Ctrl-C reaches the demo alone, which drains before it stops the engine.
            start_new_session=True,
        )
        output = ""
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_READY_S):
                while not output.startswith(_LISTENING) and (line := await process.stdout.readline()):
                    output = line.decode(errors="replace").strip()
        if not output.startswith(_LISTENING):
            await self.kill()
            raise EngineStartError(f"the simulator did not start; its last output is: {output or 'nothing'}")
        self.url = output.removeprefix(_LISTENING)
        self._port = int(self.url.rpartition(":")[2])

    async def kill(self) -> None:
        """Kill the process, which cuts every call in flight."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
