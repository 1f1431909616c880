"""Findings on the engine: its model, context and KV cache against the longest prompt. Pure: this module asks nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from schemas import RunMode
from services.core.settings import Settings
from services.doctor.finding import Finding, fail, ok, warn
from services.fusion.prompt.capacity import fitting_window
from services.inference.engine import EngineInfo

_PREFIXES_A_SYMBOL: Final = 2
"""Prefixes of a symbol that are in use at once: the current epoch's and the next one's, which is being sent ahead."""


@dataclass(frozen=True, slots=True)
class PromptFacts:
    """The longest prompt of the settings and its prefix, in tokens."""

    tokens: int
    prefix_tokens: int


def engine_findings(settings: Settings, info: EngineInfo, prompt: PromptFacts | None, symbols: int) -> list[Finding]:
    """Return the findings on an engine that answers; `prompt` is None when none could be built."""
    check = f"engine {info.name}"
    found = [*_source(check, settings, info)]
    if prompt is not None:
        found += [*_context(check, settings, info, prompt), *_capacity(check, settings, info, prompt, symbols)]
    context = f", context {info.context_tokens} tokens" if info.context_tokens else ""
    longest = f", longest prompt {prompt.tokens}" if prompt else ""
    return found or [ok(check, f"{info.model} ({info.source}){context}{longest}{_held(info)}")]


def _held(info: EngineInfo) -> str:
    return f", KV cache of {info.kv_capacity_tokens} tokens" if info.kv_capacity_tokens else ""


def _source(check: str, settings: Settings, info: EngineInfo) -> Iterator[Finding]:
    if info.source == "simulator" and settings.run_mode is RunMode.LIVE:
        yield fail(check, "is the simulator, which run mode live refuses", "set engine.urls to a real engine")
    if info.source == "llm" and settings.engine.kind == "sglang" and settings.engine.tokenizer_file is None:
        yield fail(
            check,
            f"serves {info.model}, but prompts are tokenized with the simulator's tokenizer, so the model reads noise",
            "set engine.tokenizer_file to the model's own tokenizer.json",
        )


def _context(check: str, settings: Settings, info: EngineInfo, prompt: PromptFacts) -> Iterator[Finding]:
    fusion = settings.fusion
    deep = bool(fusion.deep_every_bars or fusion.deep_on_move_atr is not None)
    answer = fusion.max_new_tokens + (fusion.deep_thought_tokens if deep else 0)
    needed = prompt.tokens + answer
    if info.context_tokens is not None and needed > info.context_tokens:
        yield fail(
            check,
            f"accepts {info.context_tokens} tokens; the longest prompt has {prompt.tokens}, and its answer up to {answer}",
            f"lower fusion.window_bars ({fusion.window_bars}) or slow_window_bars ({fusion.slow_window_bars}), "
            f"or start the engine with a context of at least {needed}",
        )


def _capacity(check: str, settings: Settings, info: EngineInfo, prompt: PromptFacts, symbols: int) -> Iterator[Finding]:
    if info.kv_capacity_tokens is None or not symbols:
        return
    lanes = symbols * len(settings.fusion.trigger_interval_set)
    needed = lanes * prompt.prefix_tokens * (_PREFIXES_A_SYMBOL if settings.fusion.prewarm else 1)
    # The symbols are distributed over the engines.
    needed = -(-needed // len(settings.engine.urls))
    if needed > info.kv_capacity_tokens:
        window = fitting_window(settings.fusion.window_bars, needed, info.kv_capacity_tokens)
        yield warn(
            check,
            f"its KV cache holds {info.kv_capacity_tokens} tokens; the prefixes of {symbols} symbols need about {needed}, so prefix hits "
            "collapse",
            f"set fusion.window_bars to {window} or less, reduce fusion.symbols, or add engines",
        )
