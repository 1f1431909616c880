"""Engines that a command starts on this machine and kills, each a child process: the real model on the CPU, and the simulator."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from services.core.settings import Settings
from services.inference.child_server import ChildServer
from services.inference.local.process import LocalEngine
from services.inference.local.weights import adapted, fetch, shipped_adapter
from services.inference.simulator.__main__ import LISTENING

_READY_S: Final = 30.0

Note = Callable[[str], None]
Prepare = Callable[[Note], tuple[ChildServer, dict[str, Any]]]
"""Makes a server, and returns with it what the settings of its engine need besides the address; called in a thread."""


class OwnEngine:
    """An engine that never outlives its owner."""

    def __init__(self, prepare: Prepare) -> None:
        """Start nothing yet."""
        self._prepare = prepare
        self._prepared: tuple[ChildServer, dict[str, Any]] | None = None

    async def start(self, settings: Settings, note: Note) -> Settings:
        """Start, on the same port as before, and return `settings` with this engine; raise ServerStartError. `note` takes progress."""
        loop = asyncio.get_running_loop()

        def note_from_thread(text: str) -> None:
            loop.call_soon_threadsafe(note, text)

        if self._prepared is None:
            self._prepared = await asyncio.to_thread(self._prepare, note_from_thread)
        server, changes = self._prepared
        await server.start()
        engine = settings.engine.model_copy(update={**changes, "urls": [server.url]})
        return settings.model_copy(update={"engine": engine})

    async def kill(self) -> None:
        """Kill the process, which cuts every call in flight."""
        if self._prepared is not None:
            await self._prepared[0].kill()


def local_model(*, symbols: int, context_tokens: int) -> OwnEngine:
    """Return SmolLM2-135M with the shipped adapter on this machine's CPU, for `symbols` prompts of `context_tokens` with their answers.

    It fetches its weights.
    """

    def prepare(note: Note) -> tuple[ChildServer, dict[str, Any]]:
        weights = adapted(fetch(note), shipped_adapter(), note)
        # Without room for next prefixes: sending one ahead takes the CPU 15 s.
        server = LocalEngine(weights, symbols=symbols, ahead=False, context_tokens=context_tokens)
        return server, {"kind": "llamacpp", "tokenizer_file": weights.tokenizer, "chat_template": weights.chat_template}

    return OwnEngine(prepare)


def simulator(*, seed: int, time_scale: float) -> OwnEngine:
    """Return the simulator; `time_scale` 1 is the speed of the measured GPU, 0 answers at once."""
    options = ("--seed", str(seed), "--time-scale", str(time_scale))
    server = ChildServer("services.inference.simulator", options, listening=LISTENING, ready_s=_READY_S)
    return OwnEngine(lambda _: (server, {}))
