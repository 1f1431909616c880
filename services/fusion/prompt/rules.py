"""The rules at a prompt's head: a strategy's instructions, the legend of what it shows, and the answer contract, which none changes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from services.fusion.prompt.short_tail import short_legend
from services.fusion.prompt.wording import CONTRACT, AnswerForm
from services.strategy.model import Fact, FeatureColumn, Strategy

DISTANCES: Final = ("open", "high", "low")
"""Columns that show a price as its distance from the close."""
_UNIT_TEXT: Final = {"price": "", "distance": " in price", "return": " in basis points", "number": ""}

_TIME: Final = (
    "Time is that of the bar's end, HHMM; for bars of a day or more it is the date, MMDD, and 'until HH:MM' marks a session that closed "
    "early. '-- Tue 2024-07-02' begins a day, '-- 2025' a year, '-- break' is a pause in trading, '-- no bar' a slot without trade. "
    "'partial' marks a bar that is still open. Slower bars come first; a row that begins with an interval, such as 1h, is a slower bar "
    "that closed after those.\n"
)
_CHART_READER: Final = (
    "The chart reader numbers the bars of its chart from 0, the oldest, and, where its model beats chance, says how likely the close is "
    "higher after the bars that it looks ahead.\n"
)


def rules(strategy: Strategy, form: AnswerForm, *, flash: bool = False) -> str:
    """Return the system text of every prompt of `strategy` whose answers have this form; `flash` of a worker in that mode.

    Prompts of mode `deep` share it, so that they share the cached prefix.
    """
    text = f"{strategy.instructions}{bars_legend(strategy)}{facts_legend(strategy)}{CONTRACT[form]}"
    return f"{text}{short_legend(strategy)}" if flash else text


def shows_distances(strategy: Strategy) -> bool:
    """Return whether rows show a price as its distance from the close."""
    return any(column in DISTANCES for column in strategy.columns)


def bars_legend(strategy: Strategy) -> str:
    """Return what explains the rows of bars, in the order of their columns."""
    own = [column for column in strategy.columns if isinstance(column, FeatureColumn)]
    sentences = [f"A bar is one row: {', '.join(_column_texts(strategy))}."]
    sentences += [f"{column.label} is {_ended(column.meaning)}" for column in own if column.meaning]
    if own:
        sentences.append("'--' in a column is unknown.")
    if shows_distances(strategy):
        sentences.append("Distances are in the part of a basis point that the heading names; 9999 is that or more.")
    return f"{' '.join(sentences)} {_TIME}"


def facts_legend(strategy: Strategy) -> str:
    """Return what explains the facts, those in price first, then those in basis points, then plain numbers."""
    facts = strategy.facts
    if not facts:
        return _CHART_READER
    sentences = ["Facts are those of the last closed bar."]
    for title, units in (("In price", ("price", "distance")), ("In basis points", ("return",))):
        entries = [_joined(fact.names) + (f", {fact.meaning}" if fact.meaning else "") for fact in facts if fact.unit in units]
        if entries:
            sentences.append(f"{title}: {'; '.join(entries)}.")
    numbers = [_number_text(fact) for fact in facts if fact.unit == "number"]
    if numbers:
        sentences.append(f"{'; '.join(numbers)}.")
    return f"{' '.join(sentences)} A fact that is missing is unknown. {_CHART_READER}"


def _column_texts(strategy: Strategy) -> Iterable[str]:
    yield "time"
    distances: list[str] = []
    for column, after in zip(strategy.columns, [*strategy.columns[1:], None], strict=True):
        if column in DISTANCES:
            distances.append(str(column))
            if after not in DISTANCES:
                noun = "a distance" if len(distances) == 1 else "distances"
                yield f"then {_joined(distances)} as {noun} from the close"
                distances = []
        elif column == "volume":
            yield "volume as two digits and a power of ten (12e3 is 12000)"
        elif column == "rsi":
            yield "RSI"
        elif isinstance(column, FeatureColumn):
            yield f"{column.label}{_UNIT_TEXT[column.unit]}"
        else:
            yield str(column)


def _number_text(fact: Fact) -> str:
    return f"{_joined(fact.names)} {'is' if len(fact.names) == 1 else 'are'} {fact.meaning}"


def _ended(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


def _joined(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
