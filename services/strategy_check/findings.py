"""What is wrong with a strategy that its folder alone does not tell, and what its prompts cost on the calibrated GPU."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.core.settings import Settings
from services.core.table_inputs import input_classes
from services.core.tokenizer import Tokenizer
from services.fusion.prompt.version import version_of
from services.inference.simulator.timing import Calibration
from services.market.own_features import FeatureFunction
from services.strategy.catalogue import BOOK_FACTS, FEATURE_UNITS
from services.strategy.folder import FEATURES
from services.strategy.hooks import Hooks
from services.strategy.model import DEFAULT_INPUTS
from services.strategy_check.prompt_preview import PromptPreview, features_of, preview
from services.strategy_check.purity import hook_errors, input_errors

KV_BYTES_A_TOKEN: Final = 33 * 1024
"""MiniCPM4.1-8B in bf16: 32 layers of 2 KV heads of 128, keys and values, and 1 KiB for the EAGLE3 draft."""
CALIBRATION: Final = Path(__file__).parents[1] / "inference" / "data" / "calibration-h100.json"
_NEEDED_FOR_LEVELS: Final = ("close", "atr")


@dataclass(frozen=True, slots=True)
class Cost:
    """A prompt at the end of an epoch, when it is longest; milliseconds are those of the calibrated GPU with nothing else to do."""

    tokens: int
    cached_tokens: int
    kv_bytes: int
    first_token_cold_ms: float
    first_token_cached_ms: float
    gpu: str
    context_tokens: int


@dataclass(frozen=True, slots=True)
class Findings:
    """`errors` must be corrected; `notes` may be intended."""

    version: str
    errors: tuple[str, ...]
    notes: tuple[str, ...]
    cost: Cost


async def check(settings: Settings, tokenizer: Tokenizer, folder: Path | None) -> Findings:
    """Return what is found of the strategy of `settings`, whose own features stand in `folder`.

    Raises SettingsError, HookError or ValueError where no prompt can be made.
    """
    own = features_of(folder)
    longest = await preview(settings, tokenizer, own, end_of_epoch=True)
    again = await preview(settings, tokenizer, own, end_of_epoch=True)
    cost = cost_of(longest, Calibration.from_file(CALIBRATION))
    hooks = Hooks.of(settings.fusion.strategy)
    impure = (*hook_errors(hooks, longest.view), *input_errors(settings, longest.moment))
    errors = (*_errors(settings, longest, again), *impure, *_too_long(cost))
    return Findings(version_of(settings.fusion.strategy), errors, tuple(_notes(settings, longest, own)), cost)


def cost_of(prompt: PromptPreview, gpu: Calibration) -> Cost:
    """Return what a prompt costs on `gpu`."""
    cached, tokens = prompt.prefix_tokens, prompt.tokens
    return Cost(
        tokens=tokens,
        cached_tokens=cached,
        kv_bytes=tokens * KV_BYTES_A_TOKEN,
        first_token_cold_ms=_prefill_ms(gpu, 0, tokens),
        first_token_cached_ms=_prefill_ms(gpu, cached, tokens),
        gpu=f"{gpu.accelerator}, {gpu.model}",
        context_tokens=gpu.limits.context_tokens,
    )


def _prefill_ms(gpu: Calibration, cached: int, tokens: int) -> float:
    """Return the time of the prefill steps after `cached` tokens."""
    steps = range(cached, tokens, gpu.limits.chunk_tokens)
    return sum(gpu.prefill_ms([(start, min(gpu.limits.chunk_tokens, tokens - start))]) for start in steps)


def _errors(settings: Settings, first: PromptPreview, second: PromptPreview) -> Iterator[str]:
    strategy = settings.fusion.strategy
    absent = [name for name in _NEEDED_FOR_LEVELS if name not in strategy.fact_of]
    if absent and settings.fusion.mode != "flash":
        yield (
            f"the answer gives prices in tenths of one atr from the last close, and [[facts]] shows no {' and no '.join(absent)}; add "
            'them, or set mode = "flash" in [answers]'
        )
    if not _is_asked(settings):
        yield "no rule of [triggers] and no hook makes a trigger, so the model is never asked; set trigger_on_closed_bar = true"
    if (first.prefix, first.tail) != (second.prefix, second.tail):
        differing = sorted(name for name in first.facts if first.facts[name] != second.facts.get(name))
        facts = f", in the facts {', '.join(differing)}" if differing else ""
        yield (
            f"the same bars gave two different prompts{facts}: {FEATURES}, hooks and inputs must not read the clock or files, draw random "
            "numbers or keep state"
        )


def _is_asked(settings: Settings) -> bool:
    fusion = settings.fusion
    by_rule = fusion.trigger_on_closed_bar or fusion.trigger_on_vision or fusion.deep_every_bars
    return bool(by_rule or fusion.trigger_on_move_atr or fusion.deep_on_move_atr or fusion.strategy.hooks.triggers)


def _too_long(cost: Cost) -> Iterator[str]:
    if cost.tokens > cost.context_tokens:
        yield (
            f"the longest prompt has {cost.tokens:,} tokens, more than the context of {cost.context_tokens:,} of {cost.gpu}; show fewer "
            "bars in [intervals]"
        )


def _notes(settings: Settings, prompt: PromptPreview, own: FeatureFunction | None) -> Iterator[str]:
    strategy = settings.fusion.strategy
    for name in strategy.inputs:
        if name not in DEFAULT_INPUTS and not input_classes()[name].samples(prompt.moment):
            yield f"the input {name} has no samples, so its lines are neither checked nor shown here; define samples in its class"
    made = Hooks.of(strategy).facts(prompt.view)
    if unnamed := sorted(made.keys() - strategy.fact_of.keys()):
        yield f"hooks.facts returns {', '.join(unnamed)}, which no [[facts]] names: prompts do not show it"
    if strategy.hooks.triggers and settings.fusion.trigger_on_closed_bar:
        yield "hooks.triggers are not asked, as every closed bar triggers: set trigger_on_closed_bar = false in [triggers]"
    built = {interval for higher in settings.market.aggregate.values() for interval in higher}
    if not_built := [interval for interval in list(strategy.intervals)[1:] if interval not in built]:
        first = next(iter(strategy.intervals))
        wanted = ", ".join(f'"{interval}"' for interval in not_built)
        setting = f"market.aggregate = {{ {first} = [{wanted}] }}"
        yield f"{', '.join(not_built)}: market.aggregate of these settings does not build it; set {setting}, or publish its candles"
    foreign = [name for name in strategy.shown_features if name not in FEATURE_UNITS and name not in made]
    computed = [name for name in prompt.view.features if name not in FEATURE_UNITS]
    for name in (one for one in foreign if one not in prompt.facts):
        near = difflib.get_close_matches(name, [*FEATURE_UNITS, *BOOK_FACTS, *computed, *made], n=1)
        where = f"{FEATURES} does not compute it" if own is not None else f"there is no {FEATURES}"
        yield (
            f"{name}: {where}, and services/market does not publish it{f' (did you mean {near[0]}?)' if near else ''}; a producer of your "
            "own has to, or it stays unknown"
        )
    if unshown := [name for name in computed if name not in strategy.shown_features]:
        yield f"{FEATURES} computes {', '.join(unshown)}, which neither [[facts]] nor columns name: prompts do not show it"
