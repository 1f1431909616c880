"""The sentences and headings of a prompt that no strategy changes: the answer contract, the instrument, and the parts of the tail.

Only numbers, clock times and names that the contracts restrict to plain identifiers come from topics, so that nothing on a topic
can speak to the model in words of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Final, Literal

from schemas import Instrument
from services.core.calendar import SessionCalendar
from services.fusion.state.vision_windows import CurrentVision

GAP_ROW: Final = "-- no bar\n"
BREAK_ROW: Final = "-- break\n"
PARTIAL: Final = "partial "
FACTS: Final = "Facts: "
UNKNOWN: Final = "--"
ALWAYS_OPEN: Final = "trades at all hours"
NO_CHART_READER: Final = "Chart reader: absent.\n"

_LEVELS: Final = (
    "action: buy = want long, sell = want short. conviction: 0 to 100. horizon: bars, 1 to 99. entry, stop, target: whole tenths of "
    "one atr from the last close; entry is the worst price to open at. For buy: stop below entry, entry below target; for sell the "
    "other way round."
)
_STANDING: Final = "exit = close what is held, hold = leave everything standing.\n"
_ABSTAIN: Final = "Abstain when the data is thin, old or contradictory. A weak edge is a low conviction.\n"

_LINE_CONTRACT: Final = (
    "Answer with one line and nothing else: action conviction horizon entry stop target, one space between them.\n"
    "buy 62 5 2 -12 25\n"
    f"{_LEVELS} entry is -9 to 9; unless it is 0, stop and target are 10 or more away from the last close.\n"
    "hold 40 5\n"
    f"{_STANDING}"
    "abstain why there is no view\n"
    f"{_ABSTAIN}"
)
_JSON_CONTRACT: Final = (
    "Answer with one JSON object on one line and nothing else, keys in this order:\n"
    '{"action":"buy","conviction":62,"horizon":5,"entry":2,"stop":-12,"target":25}\n'
    f"{_LEVELS}\n"
    '{"action":"hold","conviction":40,"horizon":5}\n'
    f"{_STANDING}"
    '{"action":"abstain","reason":"why there is no view"}\n'
    f"{_ABSTAIN}"
)

AnswerForm = Literal["line", "json"]

CONTRACT: Final[dict[AnswerForm, str]] = {"line": _LINE_CONTRACT, "json": _JSON_CONTRACT}
"""The answer contract, by the answer's form. It follows the strategy's instructions and legend, and no strategy changes it."""

QUESTION: Final[dict[AnswerForm, str]] = {
    "line": "What should be held now? Answer with the line.\n",
    "json": "What should be held now? Answer with the JSON object.\n",
}

EXPLAINED_QUESTION: Final[dict[AnswerForm, str]] = {
    "line": "What should be held now? Answer with the line, and on the next one say why in one short sentence.\n",
    "json": 'What should be held now? Answer with the JSON object; its last key is "rationale":"one short sentence that says why".\n',
}
"""Asks for a rationale as well."""

FLASH_QUESTION: Final = "{labels}?\n"

SHORT_LEGEND: Final = (
    "A question of a few words, such as 'buy, sell, exit or hold?', asks what should be held now: answer with one of its words alone. What "
    "stands before it is short: after Now the weekday, the date as MMDD where rows have none, and whether the session is closed or until "
    "when it is open; {facts}after Chart how many bars the chart reader saw, its age where that is stale, each pattern's score, first and "
    "last bar, and how likely the close is higher after so many bars.\n"
)
"""Follows the answer contract in mode `flash`: what `short_tail.py` makes of a tail."""

RATIONALE_QUESTION: Final = "Say why in one short sentence.\n"
"""Asked after an answer of mode `flash`."""

REPAIR: Final[dict[AnswerForm, str]] = {
    "line": "That was not the one line asked for. Answer again with it alone.\n",
    "json": "That was not the one JSON object asked for. Answer again with it alone.\n",
}


_UNDATED: Final = (
    "Dates are hidden: in place of MMDD stands the number of days since a day that is not named, and '-- day 12' begins such a day.\n"
)

_PARTS: Final = ("basis points", "tenths of a basis point", "hundredths of a basis point")


def instrument_block(instrument: Instrument, zone: str, *, dated: bool = True) -> str:
    """Return the block that names the instrument, and the zone that all times are in; and that dates are hidden, where they are."""
    return (
        f"Instrument {instrument.symbol}, currency {instrument.currency}, tick {instrument.price_increment}, "
        f"sessions {instrument.calendar}. All times are in {zone}.\n"
    ) + ("" if dated else _UNDATED)


def bars_heading(interval: str, digits: int, *, distances: bool = True) -> str:
    """Return the heading of an interval's closed bars, which show basis points, if `distances`, with `digits` after the point."""
    return f"{interval} bars, distances in {_PARTS[digits]}:\n" if distances else f"{interval} bars:\n"


def day_row(day: date) -> str:
    """Return the row that begins a day."""
    return f"-- {day:%a %Y-%m-%d}\n"


def undated_day_row(number: int) -> str:
    """Return the row that begins a day, where dates are hidden."""
    return f"-- day {number}\n"


def year_row(day: date) -> str:
    """Return the row that begins a year."""
    return f"-- {day:%Y}\n"


def until(clock: str) -> str:
    """Return what marks the row of a day whose session closed early."""
    return f" until {clock}"


def now_row(at: datetime, calendar: SessionCalendar, close: datetime | None, number: int | None = None) -> str:
    """Return the row that says when the last bar closed, and until when the market is open then, both in the exchange's zone.

    `number` is that of the day, where dates are hidden.
    """
    session = "closed"
    if calendar.always_open:
        session = ALWAYS_OPEN
    elif close is not None:
        session = f"open until {close:%H:%M}" if close.date() == at.date() or number is not None else f"open until {close:%a %H:%M}"
    if number is not None:
        return f"Now day {number} {at:%H:%M}, session {session}.\n"
    return f"Now {at:%a %Y-%m-%d %H:%M}, session {session}.\n"


def facts_row(texts: Sequence[str]) -> str:
    """Return the row of all facts."""
    return f"{FACTS}{' '.join(texts)}\n"


def vision_row(vision: CurrentVision, interval: str, p_up: float | None) -> str:
    """Return the row that says what the chart reader saw: the four latest patterns, the clearest first where they end together.

    `p_up` is None where its probability of a rise is not to be shown.
    """
    features = vision.features
    if features is None:
        return NO_CHART_READER
    age = "fresh" if vision.state == "fresh" else f"stale by {(vision.age_ms or 0) // 1000} s"
    chosen = sorted(features.patterns, key=lambda pattern: (-pattern.last_bar, -pattern.score, pattern.label, pattern.first_bar))[:4]
    patterns = ", ".join(f"{p.label} {p.score:.2f} on bars {p.first_bar} to {p.last_bar}" for p in chosen) or "no pattern"
    ahead = "its horizon" if features.detector.horizon_bars is None else f"the next {features.detector.horizon_bars} bars"
    rise = "" if p_up is None else f"; a rise over {ahead} {p_up:.3f}"
    return f"Chart reader, {age}, {features.window_bars} bars of {interval}: {patterns}{rise}.\n"
