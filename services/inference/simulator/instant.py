"""The simulator's answers without its server and its times: for a backtest, whose clock stands still while an engine answers.

It reads the prompt, as the server does, and has no cache: its answer depends on the prompt alone.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

from services.core.tokenizer import Tokenizer
from services.inference.engine import Capabilities, Chunk, EngineInfo, EngineLoad, EngineRequest, Scores, TokenIds, Usage
from services.inference.simulator.answers import Author


class InstantSimulator:
    """The simulator's fixed rules as an engine that answers at once."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Read prompts with `tokenizer`; raise ValueError when it has no end token that is known here."""
        self._author = Author(tokenizer)

    @property
    def name(self) -> str:
        """Return `simulator`."""
        return "simulator"

    @property
    def capabilities(self) -> Capabilities:
        """Return that it reads ids, and has no cache."""
        return Capabilities(token_ids=True, prewarm=False, abort="no", grammar=True, logprobs=True, cached_tokens=False, regex=True)

    async def info(self) -> EngineInfo:
        """Return what it is."""
        return EngineInfo(name=self.name, source="simulator", model="simulator's fixed rules, at once")

    async def stream(self, request: EngineRequest) -> AsyncGenerator[Chunk]:
        """Yield the answer in one chunk."""
        answer = self._author.answer(request.input_ids, request.sampling.stop, request.sampling.regex)
        tokens = min(answer.ids.size, request.sampling.max_new_tokens)
        finish = "stop" if tokens == answer.ids.size else "length"
        logprobs = None if request.labels is None else self._author.scores(request.input_ids, request.labels)
        usage = Usage(request.input_ids.size, tokens, finish_reason=finish)
        yield Chunk(answer.text_at(tokens), None, usage, await self.info(), logprobs)

    async def warm(self, rid: str, affinity: str, input_ids: TokenIds) -> Usage:
        """Do nothing: there is no cache."""
        del rid, affinity
        return Usage(input_ids.size, 0)

    async def score(self, request: EngineRequest, labels: TokenIds) -> Scores:
        """Return what the rules would say."""
        return Scores(self._author.scores(request.input_ids, labels), Usage(request.input_ids.size, 1, finish_reason="length"))

    async def load(self, affinity: str | None = None) -> EngineLoad | None:
        """Return None: it is never busy."""
        del affinity
        return None

    async def watch(self) -> None:
        """Do nothing: it does not hang."""

    async def close(self) -> None:
        """Do nothing."""
