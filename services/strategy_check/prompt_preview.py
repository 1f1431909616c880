"""A strategy's prompt of a made-up bar, built by the worker's own prompt builder, with its tokens counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from schemas import interval_ms
from services.core.clock import SystemClock
from services.core.settings import Settings
from services.core.tokenizer import Tokenizer
from services.fusion.inputs.moment import Moment
from services.fusion.inputs.tables import Tables
from services.fusion.prompt.builder import PromptBuilder
from services.fusion.prompt.layout import visible
from services.fusion.prompt.store import PrefixStore
from services.fusion.state.view import view_of
from services.market.own_features import FeatureFunction, load_features
from services.strategy.folder import FEATURES, StrategyError
from services.strategy.hooks import BookView
from services.strategy_check.feature_errors import feature_errors
from services.strategy_check.sample_book import sample_book


@dataclass(frozen=True, slots=True)
class PromptPreview:
    """A prompt as text, special tokens by their names, and its tokens."""

    version: str
    interval: str
    prefix: str
    """What the engine has cached from one decision to the next, as far as it goes."""
    tail: str
    """What is new in every decision."""
    rules_tokens: int
    prefix_tokens: int
    tokens: int
    facts: Mapping[str, float]
    view: BookView
    """What hooks see of the bar."""
    moment: Moment
    """What inputs see of it."""


def features_of(folder: Path | None) -> FeatureFunction | None:
    """Return the features of a strategy's own folder, None where it has none; raise SettingsError or StrategyError for unusable ones."""
    if folder is None or not (file := folder / FEATURES).is_file():
        return None
    for error in feature_errors(file):
        raise StrategyError(error)
    return load_features(file)


async def preview(settings: Settings, tokenizer: Tokenizer, own: FeatureFunction | None, *, end_of_epoch: bool = False) -> PromptPreview:
    """Return the prompt of a decision on the fastest trigger interval, half an epoch or a whole one after its start.

    Inputs say what follows from their samples. Raises HookError when a hook of the facts or an input fails, and ValueError when the
    tokenizer lacks a token of the chat template or, in mode `flash`, of the labels.
    """
    fusion = settings.fusion
    interval = min(fusion.trigger_interval_set, key=interval_ms)
    slots = fusion.epoch_slots if end_of_epoch else (fusion.epoch_slots + 1) // 2
    store = PrefixStore(None, settings.redis, SystemClock(), "preview")
    builder = PromptBuilder(fusion, tokenizer, settings.engine.chat_template, store, settings.redis.local_bytes)
    book = sample_book(settings, interval, own, slots_into_epoch=slots)
    moment = Moment.of(book, interval)
    builder.tables = Tables(settings)
    builder.tables.take_samples(moment)
    plan = builder.plan(book, interval, fusion.mode)
    prompt = await builder.build(plan)
    return PromptPreview(
        version=builder.prompt_version,
        interval=interval,
        prefix=visible([*(block.piece for block in plan.prefix.blocks), *plan.lines]),
        tail=visible([plan.tail, *builder.template.tail(plan.mode)]),
        rules_tokens=int(tokenizer.encode(builder.rules).size),
        prefix_tokens=prompt.prefix_tokens,
        tokens=int(prompt.ids.size),
        facts=plan.facts,
        view=view_of(book, interval),
        moment=moment,
    )
