"""The facts of one moment: the numbers beside the bars that a prompt shows, by name, and how each is written."""

from __future__ import annotations

from typing import Final

from services.fusion.state.book import Book, CurrentVision

FACTS: Final = ("atr", "rsi", "ema_fast", "ema_slow", "ret_1", "ret_5", "macd_hist", "bb_pos", "volume_z")
"""The features that are shown, in this order."""

_HUGE: Final = 1e9
"""Features may be any number; one of 300 digits would cost as much as ten bars."""


def facts(book: Book, interval: str, vision: CurrentVision) -> dict[str, float]:
    """Return the facts of this moment by name: `close`, those of FACTS that are known, and the `p_up` of a model that beats chance."""
    bars = book.bars[interval]
    values = {"close": bars.close[-1]}
    values.update({name: bars.features[name] for name in FACTS if name in bars.features})
    seen = vision.features
    if seen is not None and seen.detector.skill is not None and seen.detector.skill.beats_chance:
        values["p_up"] = seen.p_up
    return values


def fact_text(name: str, value: float, decimals: int) -> str:
    """Return a fact as the prompt writes it; prices have `decimals` places."""
    if name == "close":
        number = f"{value:.{decimals}f}"
    elif abs(value) >= _HUGE:
        number = f"{value:.3e}"
    else:
        number = f"{value:.4f}" if abs(value) < 1 else f"{value:.2f}"
    return f"{name}={number}"
