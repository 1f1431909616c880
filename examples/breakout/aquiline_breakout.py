"""Hooks of a breakout desk: facts about the channel of the last 20 bars, a trigger when it breaks, a guard against late entries."""

from __future__ import annotations

from typing import Final, Literal

from services.strategy.hooks import BookView

CHANNEL_BARS: Final = 20
MAX_EXTENSION_ATR: Final = 3.0


def channel(view: BookView) -> dict[str, float]:
    """Return the high and low of the bars before the last, and where the close lies between them: 0 the low, 1 the high."""
    bars = view.bars[view.interval]
    if len(bars.close) <= CHANNEL_BARS:
        return {}
    high, low = float(bars.high[-1 - CHANNEL_BARS : -1].max()), float(bars.low[-1 - CHANNEL_BARS : -1].min())
    facts = {"channel_high": high, "channel_low": low}
    return facts | ({"channel_pos": (float(bars.close[-1]) - low) / (high - low)} if high > low else {})


def breakout(view: BookView) -> str | None:
    """Ask the model when the last close lies outside the channel."""
    position = channel(view).get("channel_pos")
    if position is None or 0 <= position <= 1:
        return None
    return "breakout_up" if position > 1 else "breakout_down"


def not_extended(view: BookView, action: Literal["buy", "sell"]) -> str | None:
    """Block an entry that comes more than three ATR beyond the channel."""
    facts, atr = channel(view), view.features.get("atr", 0.0)
    if not facts or atr <= 0:
        return None
    close = float(view.bars[view.interval].close[-1])
    beyond = close - facts["channel_high"] if action == "buy" else facts["channel_low"] - close
    return f"the close is {beyond / atr:.1f} ATR beyond the channel" if beyond > MAX_EXTENSION_ATR * atr else None
