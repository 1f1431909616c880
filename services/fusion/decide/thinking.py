"""The thought of mode `deep`: a call of its own, cut at its budget of tokens or of time; then the answer is asked for under the grammar.

The second call finds the prompt and most of the thought in the engine's cache. Engines that take text alone think and answer in one call.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final, Literal
from uuid import UUID, uuid4

from services.core.clock import Clock
from services.core.fusion_settings import FusionSettings
from services.fusion.decide.answer import after_thought, sampling
from services.fusion.decide.deadline import until
from services.fusion.prompt.builder import PromptBuilder
from services.inference.engine import THOUGHT_END, Chunk, Engine, EngineRequest, Sampling

Cut = Literal["tokens", "deadline"]
_AFTER_THOUGHT: Final = f"{THOUGHT_END}\n\n"


@dataclass(frozen=True, slots=True)
class Thought:
    """What the model thought before its answer."""

    text: str
    tokens: int
    """Of `text`, by the worker's tokenizer."""
    cut: Cut | None
    """Which budget ended it; None when the model did."""

    @property
    def before_answer(self) -> str:
        """Return what stands before the answer in the audit."""
        return self.text + _AFTER_THOUGHT


async def think(
    engine: Engine,
    request: EngineRequest,
    *,
    prompts: PromptBuilder,
    settings: FusionSettings,
    clock: Clock,
    seed_of: UUID,
    took: Callable[[Chunk], Awaitable[None]],
) -> tuple[Thought, EngineRequest]:
    """Have `engine` think about `request`, and return the thought and the request for the answer after it; raise EngineError.

    The thought ends `deep_answer_ms` before the request's deadline at the latest, and its call with it. `took` gets each chunk.
    """
    until_ms = request.deadline_ms - settings.deep_answer_ms
    text = ""
    cut: Cut | None = None
    if until_ms <= clock.now_ms():
        cut = "deadline"
    else:
        thinking = replace(request, sampling=_sampling(settings, seed_of))
        finish: str | None = None
        try:
            async with until(clock, until_ms), aclosing(engine.stream(thinking)) as chunks:
                async for chunk in chunks:
                    await took(chunk)
                    text += chunk.text.encode(errors="replace").decode()
                    finish = chunk.usage.finish_reason if chunk.usage is not None else finish
        except TimeoutError:
            cut = "deadline"
        else:
            cut = "tokens" if finish == "length" else None
    ids, tokens = prompts.after_thought(request.input_ids, text)
    answering = replace(request, rid=uuid4().hex, input_ids=ids, sampling=after_thought(settings, seed_of))
    return Thought(text, tokens, cut), answering


def _sampling(settings: FusionSettings, seed_of: UUID) -> Sampling:
    return replace(sampling(settings, "deep", seed_of), max_new_tokens=settings.deep_thought_tokens, stop=THOUGHT_END)
