"""The engines that the demo starts, each a child process: the simulator, which an outage kills and restarts, and the real model."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

from services.core.settings import Settings
from services.inference.local.process import LocalEngine
from services.inference.local.weights import LocalEngineError, fetch

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
    """An engine did not start; the message says why."""


class OwnEngine(Protocol):
    """An engine that the demo starts and kills; it never outlives the demo."""

    url: str

    async def start(self, say: Callable[[str], None]) -> None:
        """Start, on the same port as before, and return once it serves; raise EngineStartError. `say` takes progress for people."""
        ...

    async def kill(self) -> None:
        """Kill the process, which cuts every call in flight."""
        ...

    def settings(self, settings: Settings) -> Settings:
        """Return `settings` with the section `engine` for this engine, which has started."""
        ...


class LocalModel:
    """SmolLM2-135M on this machine's CPU through llama.cpp."""

    def __init__(self, *, symbols: int, context_tokens: int) -> None:
        """Serve the prompts of `symbols` symbols, each of `context_tokens` tokens at most with its answer."""
        self.url = ""
        self._symbols = symbols
        self._context_tokens = context_tokens
        self._engine: LocalEngine | None = None

    async def start(self, say: Callable[[str], None]) -> None:
        """Fetch the weights unless they are cached, then start."""
        loop = asyncio.get_running_loop()

        def say_here(text: str) -> None:
            loop.call_soon_threadsafe(say, text)

        try:
            self._weights = await asyncio.to_thread(fetch, say_here)
            # Without room for next prefixes: the act ends before the next epoch, and sending one ahead takes the CPU 15 s.
            self._engine = LocalEngine(self._weights, symbols=self._symbols, ahead=False, context_tokens=self._context_tokens)
            await self._engine.start()
        except LocalEngineError as error:
            raise EngineStartError(str(error)) from error
        self.url = self._engine.url

    async def kill(self) -> None:
        """Kill the process."""
        if self._engine is not None:
            await self._engine.kill()

    def settings(self, settings: Settings) -> Settings:
        """Return `settings` with kind, address, tokenizer and chat template of this engine."""
        weights = self._weights
        return _with_engine(
            settings, kind="llamacpp", urls=[self.url], tokenizer_file=weights.tokenizer, chat_template=weights.chat_template
        )


class SimulatorProcess:
    """`python -m services.inference.simulator` on loopback."""

    def __init__(self, *, seed: int, time_scale: float) -> None:
        """`time_scale` 1 is the speed of the measured GPU, 0 answers at once."""
        self.url = ""
        self._options = ("--seed", str(seed), "--time-scale", str(time_scale))
        self._port = 0
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, say: Callable[[str], None]) -> None:
        """Start, and return once it listens."""
        del say  # it starts at once
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

    def settings(self, settings: Settings) -> Settings:
        """Return `settings` with the simulator's address."""
        return _with_engine(settings, urls=[self.url])


def _with_engine(settings: Settings, **changes: Any) -> Settings:
    return settings.model_copy(update={"engine": settings.engine.model_copy(update=changes)})
