"""The facts of one moment: the numbers beside the bars that a prompt shows, by name, and how each is written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from schemas import interval_ms
from services.fusion.prompt.lines import local
from services.fusion.state.book import Book
from services.fusion.state.vision_windows import CurrentVision

FACTS: Final = ("atr", "rsi", "ema_fast", "ema_slow", "ret_1", "ret_5", "macd_hist", "bb_pos", "volume_z")
"""The features that are shown, in this order."""

_LEVELS: Final = ("ema_fast", "ema_slow")
_DISTANCES: Final = frozenset({"atr", "macd_hist"})
_RETURNS: Final = frozenset({"ret_1", "ret_5", "day_change"})
_DAY_MS: Final = 86_400_000
_MORE_DIGITS: Final = 4
_MAX_DIGITS: Final = 15
_HUGE: Final = 1e12
"""Features may be any number; one of 300 digits would cost as much as ten bars."""


def facts(book: Book, interval: str, vision: CurrentVision) -> dict[str, float]:
    """Return the facts of this moment by name: `close`, those of FACTS and `day_change` that are known, and `p_up`.

    `p_up` is left out where the model's skill does not beat chance.
    """
    bars = book.bars[interval]
    values = {"close": bars.close[-1]}
    values.update({name: bars.features[name] for name in FACTS if name in bars.features})
    change = _day_change(book, interval)
    if change is not None:
        values["day_change"] = change
    features = vision.features
    if features is not None and features.detector.skill is not None and features.detector.skill.beats_chance:
        values["p_up"] = features.p_up
    return values


def fact_texts(values: Mapping[str, float], decimals: int, digits: int) -> list[str]:
    """Return the facts as the prompt writes them, those of the chart reader aside.

    Prices have `decimals` places, basis points at least one and at least `digits`. Averages of prices get more places where they
    would be written like the close or like each other, and distances in price as many as two digits of theirs need.
    """
    places = _level_places(values, decimals)
    return [f"{name}={_number(name, value, decimals, digits, places)}" for name, value in values.items() if name != "p_up"]


def _number(name: str, value: float, decimals: int, digits: int, level_places: int) -> str:
    if name in _RETURNS:
        value *= 10_000
    if abs(value) >= _HUGE:
        return f"{value:.3e}"
    if name == "close":
        return f"{value:.{decimals}f}"
    if name in _LEVELS:
        return f"{value:.{level_places}f}"
    if name in _DISTANCES:
        return f"{value:.{_distance_places(value, decimals)}f}"
    if name in _RETURNS:
        return f"{value:+.{max(1, digits)}f}"
    return f"{value:.1f}" if name == "rsi" else f"{value:.2f}"


def _level_places(values: Mapping[str, float], decimals: int) -> int:
    """Return the fewest places, at least `decimals`, with which levels that differ are written differently."""
    levels = {values[name] for name in ("close", *_LEVELS) if name in values}
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
