"""Every sentence and heading of a prompt: the rules and answer contract, the legend, the instrument, and the parts of the tail.

Only numbers, clock times and names that the contracts restrict to plain identifiers come from topics, so that nothing on a topic
can speak to the model in words of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from schemas import Instrument
from services.core.calendar import SessionCalendar
from services.fusion.state.book import CurrentVision

GAP_LINE: Final = "-- no bar\n"
PARTIAL: Final = "partial "

_LEGEND: Final = (
    "A bar is one line: time, close, then open, high and low in basis points from the close, volume (mantissa and power of ten), "
    "RSI. Time is MMDD for bars of a day or more, else HHMM, in UTC, of the bar's end. '-- no bar' is a slot without trade.\n"
)

RULES: Final = (
    "You are the decision step of a systematic trading desk. You are shown one instrument: its bars, oldest first, the facts of "
    "this moment and what a chart reader saw. Say what should be held over the next bars.\n"
    f"{_LEGEND}"
    "'partial' marks a bar that was still open when it was written. Slower bars come first and may end before the faster ones.\n"
    "Facts: atr is the average true range in price units, rsi 0 to 100, ema_fast and ema_slow moving averages, ret_1 and ret_5 "
    "returns over 1 and 5 bars, bb_pos the place inside the Bollinger bands, volume_z volume in standard deviations, p_up the chart "
    "reader's probability of a rise. A fact that is missing is unknown.\n"
    "Answer with one JSON object on one line and nothing else, keys in this order:\n"
    '{"action":"buy","conviction":62,"horizon":5,"entry":2,"stop":-12,"target":25,"rationale":"one sentence"}\n'
    "action: buy = want long, sell = want short. conviction: 0 to 100. horizon: bars, 1 to 99. entry, stop, target: whole tenths of "
    "one atr from the last close; entry is the worst price to open at. For buy: stop below entry, entry below target; for sell the "
    "other way round.\n"
    '{"action":"hold","conviction":40,"horizon":5,"rationale":"one sentence"}\n'
    "exit = close what is held, hold = leave everything standing.\n"
    '{"action":"abstain","reason":"why there is no view","rationale":"one sentence"}\n'
    "Abstain when the data is thin, old or contradictory. A weak edge is a low conviction.\n"
)

QUESTION: Final = "What should be held now? Answer with the JSON object.\n"

REPAIR: Final = "That was not the one JSON object asked for. Answer again with it alone.\n"


def instrument_block(instrument: Instrument) -> str:
    """Return the block that names the instrument."""
    return (
        f"Instrument {instrument.symbol}, currency {instrument.currency}, tick {instrument.price_increment}, "
        f"sessions {instrument.calendar}.\n"
    )


def bars_heading(interval: str) -> str:
    """Return the heading of an interval's closed bars."""
    return f"{interval} bars:\n"


def now_line(calendar: SessionCalendar, last_ms: int) -> str:
    """Return the line that says when the last bar closed, and whether the market is open then."""
    session = "trades at all hours" if calendar.always_open else "open" if calendar.session_close_ms(last_ms) is not None else "closed"
    return f"Now {datetime.fromtimestamp(last_ms / 1000, UTC):%Y-%m-%d %H:%M} UTC, session {session}.\n"


def facts_line(texts: Sequence[str]) -> str:
    """Return the line of all facts."""
    return f"Facts: {' '.join(texts)}\n"


def vision_line(vision: CurrentVision, interval: str) -> str:
    """Return the line that says what the chart reader saw: the four latest patterns, the clearest first where they end together."""
    features = vision.features
    if features is None:
        return "Chart reader: absent.\n"
    age = "fresh" if vision.state == "fresh" else f"stale by {(vision.age_ms or 0) // 1000} s"
    chosen = sorted(features.patterns, key=lambda pattern: (-pattern.last_bar, -pattern.score, pattern.label, pattern.first_bar))[:4]
    patterns = ", ".join(f"{p.label} {p.score:.2f} on bars {p.first_bar} to {p.last_bar}" for p in chosen) or "no pattern"
    return f"Chart reader, {age}, {features.window_bars} bars of {interval}: {patterns}.\n"
