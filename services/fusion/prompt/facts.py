"""The facts of one moment: the numbers beside the bars that a prompt shows, by name, and how each is written."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

from schemas import interval_ms
from services.fusion.prompt.lines import HUGE
from services.fusion.state.book import Book
from services.fusion.state.local_time import local
from services.fusion.state.vision_windows import CurrentVision
from services.strategy.model import Fact

_DAY_MS: Final = 86_400_000
_MORE_DIGITS: Final = 4
_MAX_DIGITS: Final = 15
NO_FACTS: Final[Mapping[str, float]] = {}
_RETURN_DIGITS: Final = 1
_NUMBER_DIGITS: Final = 2


def facts(book: Book, interval: str, vision: CurrentVision, own: Mapping[str, float] = NO_FACTS) -> dict[str, float]:
    """Return the facts of this moment by name, in the strategy's order: those that are known, and `p_up`.

    `own` are those that hooks have computed. `p_up` is left out where the model's skill does not beat chance.
    """
    values: dict[str, float] = {}
    for name in book.strategy.fact_of:
        value = own.get(name, _fact(book, interval, name))
        if value is not None:
            values[name] = value
    features = vision.features
    if features is not None and features.detector.skill is not None and features.detector.skill.beats_chance:
        values["p_up"] = features.p_up
    return values


def _fact(book: Book, interval: str, name: str) -> float | None:
    bars = book.bars[interval]
    match name:
        case "close":
            return bars.close[-1]
        case "day_change":
            return _day_change(book, interval)
        case _:
            return bars.features.get(name)


def fact_texts(values: Mapping[str, float], facts: Mapping[str, Fact], decimals: int, digits: int) -> list[str]:
    """Return the facts as the prompt writes them, as `facts` has their units, those of the chart reader aside.

    Prices have `decimals` places, basis points at least one and at least `digits`. Averages of prices get more places where they
    would be written like the close or like each other, and distances in price as many as two digits of theirs need.
    """
    prices = [values[name] for name, fact in facts.items() if fact.unit == "price" and name in values]
    places = _level_places(prices, decimals)
    shown = ((name, fact) for name, fact in facts.items() if name in values)
    return [f"{name}={_number(name, values[name], fact, decimals, digits=digits, level_places=places)}" for name, fact in shown]


def _number(name: str, value: float, fact: Fact, decimals: int, *, digits: int, level_places: int) -> str:
    if fact.unit == "return":
        value *= 10_000
    if abs(value) >= HUGE:
        return f"{value:.3e}"
    match fact.unit:
        case "price":
            return f"{value:.{decimals if name == 'close' else max(level_places, fact.digits or 0)}f}"
        case "distance":
            return f"{value:.{max(_distance_places(value, decimals), fact.digits or 0)}f}"
        case "return":
            return f"{value:+.{max(_RETURN_DIGITS if fact.digits is None else fact.digits, digits)}f}"
        case "number":
            return f"{value:.{_NUMBER_DIGITS if fact.digits is None else fact.digits}f}"


def _level_places(prices: Iterable[float], decimals: int) -> int:
    """Return the fewest places, at least `decimals`, with which prices that differ are written differently."""
    levels = set(prices)
    for places in range(decimals, decimals + _MORE_DIGITS):
        if len({f"{level:.{places}f}" for level in levels}) == len(levels):
            return places
    return decimals + _MORE_DIGITS


def _distance_places(value: float, decimals: int) -> int:
    if not value:
        return decimals
    return min(_MAX_DIGITS, max(decimals, 1 - math.floor(math.log10(abs(value)))))


def _day_change(book: Book, interval: str) -> float | None:
    """Return the last close over the last one of the day before, less 1; None where no interval's kept bars reach back to that."""
    if interval_ms(interval) >= _DAY_MS:
        return None
    zone, shown = book.calendar.zone, book.bars[interval]
    today = local(shown.ts_open[-1], zone).date()
    for name, bars in book.bars.items():
        if not interval_ms(interval) <= interval_ms(name) < _DAY_MS:
            continue
        low, high = max(0, len(bars) - bars.keep), len(bars)
        first = low
        # How much more than `keep` is held depends on when the book was begun; what a prompt says must not.
        while low < high:
            middle = (low + high) // 2
            if local(bars.ts_open[middle], zone).date() < today:
                low = middle + 1
            else:
                high = middle
        if low > first:
            return shown.close[-1] / bars.close[low - 1] - 1
    return None
