"""The round of checks that a new SGLang is tried with: it holds for the simulator, and names what a worse server breaks."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from benchmarks.gpu.contract import Round
from services.inference.engine import Chunk, EngineRequest
from services.inference.sglang_client import SGLangEngine

from .conftest import CLOCK, simulated


class Uncached(SGLangEngine):
    """A server that counts nothing as cached."""

    async def stream(self, request: EngineRequest) -> AsyncIterator[Chunk]:  # type: ignore[override]
        async for chunk in super().stream(request):
            yield Chunk(chunk.text, 0, None if chunk.usage is None else type(chunk.usage)(chunk.usage.prompt_tokens, 0, 0), chunk.engine)


@pytest.mark.parametrize("worse", [False, True])
async def test_the_round_holds_for_a_server_that_keeps_the_contract_alone(*, worse: bool) -> None:
    async with simulated() as (_, url):
        engine, scoring = (Uncached if worse else SGLangEngine)(url, CLOCK), SGLangEngine(url, CLOCK, scores=True)
        made = Round(engine, scoring)
        holds = await made.run()
        await engine.close()
        await scoring.close()
    assert holds != worse
    broken = {name for name, found in made.found.items() if not found["ok"]}
    assert broken >= {"cached tokens", "a prefix sent ahead", "token ids in, all read"} if worse else not broken
