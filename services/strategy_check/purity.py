"""Whether a strategy's hooks and inputs are pure: the same views and records give the same results, whenever and in whatever order."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from schemas import Action, interval_ms
from services.core.settings import Settings
from services.fusion.inputs.moment import Moment
from services.fusion.inputs.tables import InputFailedError, Tables
from services.strategy.hooks import BarView, BookView, HookError, Hooks

_VIEWS: Final = 8


def hook_errors(hooks: Hooks, view: BookView) -> Iterator[str]:
    """Yield what is wrong with hooks that are called on the last moments of `view`, in order and then shuffled."""
    views = [_earlier(view, bars) for bars in range(_VIEWS)]
    try:
        in_order = [_results(hooks, one) for one in views]
        numbers = _shuffled()
        shuffled = {number: _results(hooks, views[number]) for number in numbers}
    except HookError as error:
        yield str(error)
        return
    for kind in in_order[0]:
        if any(in_order[number][kind] != shuffled[number][kind] for number in numbers):
            yield (
                f"hooks.{kind}: the same bars gave {in_order[0][kind]} first and {shuffled[0][kind]} later; a hook must not read the "
                "clock or files, draw random numbers or keep state between calls"
            )


def input_errors(settings: Settings, moment: Moment) -> Iterator[str]:
    """Yield what is wrong with inputs that fold their samples twice and are asked about the last moments, in order and then shuffled."""
    span_ms = interval_ms(moment.interval)
    moments = [replace(moment, last_close_ms=moment.last_close_ms - number * span_ms) for number in range(_VIEWS)]
    try:
        first, second = _with_samples(settings, moment), _with_samples(settings, moment)
        in_order = [_said(first, one) for one in moments]
        shuffled = {number: _said(second, moments[number]) for number in _shuffled()}
    except InputFailedError as error:
        yield str(error)
        return
    for name in in_order[0]:
        if differing := [number for number in shuffled if in_order[number][name] != shuffled[number][name]]:
            one = min(differing)
            yield (
                f"{name}: the same records gave {in_order[one][name]!r} first and {shuffled[one][name]!r} later; an input must not read "
                "the clock or files, draw random numbers or keep other state than its records"
            )


def _with_samples(settings: Settings, moment: Moment) -> Tables:
    tables = Tables(settings)
    tables.take_samples(moment)
    return tables


def _said(tables: Tables, moment: Moment) -> dict[str, str]:
    symbol, at_ms = moment.instrument.symbol, moment.last_close_ms
    rules = [tables.next_rejection_ms(symbol, at_ms), *(tables.rejection_of(symbol, action, at_ms) for action in Action)]
    texts = {f"the input {name}": text for name, text in tables.texts(moment, len).items()}
    return {**texts, "the rules of inputs": repr(rules)}


def _shuffled() -> list[int]:
    numbers = list(range(_VIEWS))
    random.Random(1).shuffle(numbers)  # noqa: S311 - an order, no secret
    return numbers


def _results(hooks: Hooks, view: BookView) -> dict[str, str]:
    return {
        "facts": repr(hooks.facts(view)),
        "triggers": repr(hooks.reason_to_ask(view)),
        "guards": repr([hooks.reason_to_block(view, "buy"), hooks.reason_to_block(view, "sell")]),
    }


def _earlier(view: BookView, bars: int) -> BookView:
    """Return `view` without the last `bars` bars of its interval."""
    shown = view.bars[view.interval]
    end = max(1, len(shown.close) - bars)
    others = {name: _copied(held, len(held.close)) for name, held in view.bars.items()}
    return BookView(view.symbol, view.interval, {**others, view.interval: _copied(shown, end)}, dict(view.features))


def _copied(bars: BarView, end: int) -> BarView:
    times, *prices = bars
    return BarView(times[:end].copy(), *(column[:end].copy() for column in prices))
