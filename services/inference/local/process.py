"""Starts the local engine as a process that ends with its owner: for the demo, for tests, and for `aquiline engine local`."""

from __future__ import annotations

from typing import Final

from services.inference.child_server import ChildServer
from services.inference.local.__main__ import LISTENING, THREADS
from services.inference.local.weights import Weights

_READY_S: Final = 120.0


class LocalEngine(ChildServer):
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
        options = [
            *("--model", str(weights.gguf), "--alias", weights.model, "--host", host),
            *("--slots", str(slots_for(symbols, ahead=ahead)), "--context", str(context_tokens or weights.context_tokens)),
            *("--threads", str(threads)),
        ]
        super().__init__("services.inference.local", options, listening=LISTENING, ready_s=_READY_S, port=port)


def slots_for(symbols: int, *, ahead: bool = True) -> int:
    """Return how many slots a server needs for `symbols` symbols: one each and one for probes, and with `ahead` one more each."""
    return (2 if ahead else 1) * symbols + 1
