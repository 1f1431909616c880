"""The engines that the demo starts, each a child process: the real model, and the simulator, which an outage kills and restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol

from services.core.settings import Settings
from services.inference.child_server import ChildServer
from services.inference.local.process import LocalEngine
from services.inference.local.weights import fetch
from services.inference.simulator.__main__ import LISTENING

_READY_S: Final = 30.0


class OwnEngine(Protocol):
    """An engine that the demo starts and kills; it never outlives the demo."""

    async def start(self, settings: Settings, note: Callable[[str], None]) -> Settings:
        """Start, on the same port as before, and return `settings` with this engine; raise ServerStartError. `note` takes progress."""
        ...

    async def kill(self) -> None:
        """Kill the process, which cuts every call in flight."""
        ...


class LocalModel:
    """SmolLM2-135M on this machine's CPU through llama.cpp, for `symbols` prompts of `context_tokens` with their answers."""

    def __init__(self, *, symbols: int, context_tokens: int) -> None:
        """Start nothing yet."""
        self._symbols = symbols
        self._context_tokens = context_tokens
        self._server: LocalEngine | None = None

    async def start(self, settings: Settings, note: Callable[[str], None]) -> Settings:
        """Fetch the weights unless they are cached, then start."""
        loop = asyncio.get_running_loop()

        def note_from_thread(text: str) -> None:
            loop.call_soon_threadsafe(note, text)

        weights = await asyncio.to_thread(fetch, note_from_thread)
        # Without room for next prefixes: the act ends before the next epoch, and sending one ahead takes the CPU 15 s.
        self._server = LocalEngine(weights, symbols=self._symbols, ahead=False, context_tokens=self._context_tokens)
        await self._server.start()
        files = {"tokenizer_file": weights.tokenizer, "chat_template": weights.chat_template}
        return _with_engine(settings, kind="llamacpp", urls=[self._server.url], **files)

    async def kill(self) -> None:
        """Kill the process."""
        if self._server is not None:
            await self._server.kill()


class SimulatorEngine:
    """`python -m services.inference.simulator`; `time_scale` 1 is the speed of the measured GPU, 0 answers at once."""

    def __init__(self, *, seed: int, time_scale: float) -> None:
        """Start nothing yet."""
        options = ("--seed", str(seed), "--time-scale", str(time_scale))
        self._server = ChildServer("services.inference.simulator", options, listening=LISTENING, ready_s=_READY_S)

    async def start(self, settings: Settings, note: Callable[[str], None]) -> Settings:
        """Start, and return once it listens; there is no progress to note."""
        del note
        await self._server.start()
        return _with_engine(settings, urls=[self._server.url])

    async def kill(self) -> None:
        """Kill the process."""
        await self._server.kill()


def _with_engine(settings: Settings, **changes: Any) -> Settings:
    return settings.model_copy(update={"engine": settings.engine.model_copy(update=changes)})
