"""What a prompt says: the fixed rules and answer contract, the instrument's block, and the tail of one decision.

Only numbers, clock times and names that the contracts restrict to plain identifiers come from topics, so that nothing on a topic
can speak to the model in words of its own. Change any wording here and PROMPT_VERSION with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from schemas import Instrument
from services.fusion.prompt.lines import LEGEND
from services.fusion.state.book import Book, SeenVision, forming_line

PROMPT_VERSION: Final = "aq-1"

RULES: Final = (
    "You are the decision step of a systematic trading desk. You are shown one instrument: its bars, oldest first, the facts of "
    "this moment and what a chart reader saw. Say what should be held over the next bars.\n"
    f"{LEGEND}"
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

FACTS: Final = ("atr", "rsi", "ema_fast", "ema_slow", "ret_1", "ret_5", "macd_hist", "bb_pos", "volume_z")

_HUGE: Final = 1e9
"""Features may be any number; one of 300 digits would cost as much as ten bars."""

REPAIR: Final = "That was not the one JSON object asked for. Answer again with it alone.\n"


def instrument_block(instrument: Instrument) -> str:
    """Return the block that names the instrument."""
    return (
        f"Instrument {instrument.symbol}, currency {instrument.currency}, tick {instrument.price_increment}, "
        f"sessions {instrument.calendar}.\n"
    )


def facts(book: Book, interval: str, vision: SeenVision) -> dict[str, float]:
    """Return the facts of this moment by name: `close`, those of FACTS that are known, and `p_up`."""
    bars = book.bars[interval]
    found = {"close": bars.close[-1]}
    found.update({name: bars.features[name] for name in FACTS if name in bars.features})
    if vision.features is not None:
        found["p_up"] = vision.features.p_up
    return found


def tail(book: Book, interval: str, vision: SeenVision, values: Mapping[str, float]) -> str:
    """Return the tail: time and session, open bars, facts, vision features, the question. Not cached: keep it short."""
    bars = book.bars[interval]
    last_ms = bars.last_close_ms
    close_ms = book.calendar.session_close_ms(last_ms)
    session = "trades at all hours" if book.calendar.always_open else "open" if close_ms is not None else "closed"
    parts = [f"Now {datetime.fromtimestamp(last_ms / 1000, UTC):%Y-%m-%d %H:%M} UTC, session {session}.\n"]
    if bars.forming is not None:
        parts.append(f"{interval} {forming_line(bars.forming, book.decimals)}")
    for slower, held in book.bars.items():
        if slower != interval and held.forming is not None and held.forming.ts_close_ms > last_ms:
            parts.append(f"{slower} {forming_line(held.forming, book.decimals)}")
    words = " ".join(f"{name}={_number(name, value, book.decimals)}" for name, value in values.items())
    parts.append(f"Facts: {words}\n")
    parts.append(_vision(vision, interval))
    parts.append("What should be held now? Answer with the JSON object.\n")
    return "".join(parts)


def _vision(vision: SeenVision, interval: str) -> str:
    seen = vision.features
    if seen is None:
        return "Chart reader: absent.\n"
    age = "fresh" if vision.state == "fresh" else f"stale by {(vision.age_ms or 0) // 1000} s"
    best = sorted(seen.patterns, key=lambda pattern: (-pattern.score, pattern.label, pattern.first_bar))[:4]
    patterns = ", ".join(f"{p.label} {p.score:.2f} on bars {p.first_bar} to {p.last_bar}" for p in best) or "no pattern"
    return f"Chart reader, {age}, {seen.window_bars} bars of {interval}: {patterns}.\n"


def _number(name: str, value: float, decimals: int) -> str:
    if name == "close":
        return f"{value:.{decimals}f}"
    if abs(value) >= _HUGE:
        return f"{value:.3e}"
    return f"{value:.4f}" if abs(value) < 1 else f"{value:.2f}"
