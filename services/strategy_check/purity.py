"""Whether a strategy's hooks are pure: the same views, whenever and in whatever order they come, give the same results."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Final

from services.strategy.hooks import BarView, BookView, HookError, Hooks

_VIEWS: Final = 8


def hook_errors(hooks: Hooks, view: BookView) -> Iterator[str]:
    """Yield what is wrong with hooks that are called on the last moments of `view`, in order and then shuffled."""
    views = [_earlier(view, bars) for bars in range(_VIEWS)]
    try:
        in_order = [_results(hooks, one) for one in views]
        numbers = list(range(_VIEWS))
        random.Random(1).shuffle(numbers)  # noqa: S311 - an order, no secret
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
