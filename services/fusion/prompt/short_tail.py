"""The tail of mode `flash`: what the tail of the other modes says, in about half the tokens, and the legend that explains it.

One token is asked for, so that a decision takes as long as its new tokens take to read. What the other tail repeats with every bar, such as
the names of facts, the legend says once, in the cached rules. A short tail is made from a long one, with its numbers, and training makes
examples of this mode in the same way.
"""

from __future__ import annotations

import re
from typing import Final

from services.fusion.prompt import wording
from services.fusion.prompt.lines import shows_dates
from services.strategy.model import FeatureColumn, Strategy

_NOW: Final = re.compile(
    r"Now (?:day (?P<day>-?\d+)|(?P<weekday>\w+) \d+-(?P<month>\d\d)-(?P<date>\d\d)) [\d:]+, session (?P<session>.+)\.\n"
)
_CHART: Final = re.compile(r"Chart reader, (?:fresh|(?P<stale>stale by \d+ s)), (?P<bars>\d+) bars of \w+: (?P<seen>.+)\.\n")
_HEADING: Final = re.compile(r"^(\d+[smhdw]) bars[,:]", re.MULTILINE)
_RISE: Final = re.compile(r"; a rise over (?:its horizon|the next (\d+) bars) ")


def short_facts(strategy: Strategy) -> list[str]:
    """Return the facts that the short tail shows, in order: those that the last row does not."""
    columns = {column.feature if isinstance(column, FeatureColumn) else column for column in strategy.columns}
    return [name for name in strategy.fact_of if name not in columns]


def short_legend(strategy: Strategy) -> str:
    """Return what the rules add in mode `flash`."""
    shown = short_facts(strategy)
    in_row = [name for name in strategy.fact_of if name not in shown]
    facts = f"after Facts, without names and in this order, {', '.join(shown)}, where {wording.UNKNOWN} is unknown; " if shown else ""
    if in_row:
        facts += f"{' and '.join(in_row)} as in the last row; "
    return wording.SHORT_LEGEND.format(facts=facts)


def short_tail(tail: str, strategy: Strategy, *, daily: bool, question: str) -> str:
    """Return the tail of mode `flash`: `tail`, that of another mode without its question, made short, then `question`.

    `daily` says that rows have a date as their time. Rows of open bars stay as they are.
    """
    return "".join([_short(line, strategy, daily=daily) for line in tail.splitlines(keepends=True)]) + question


def flash_text(user: str, strategy: Strategy, question: str) -> str:
    """Return the user text of mode `flash` that has the facts of `user`, one of another mode without its question."""
    rows, now, tail = user.rpartition("\nNow ")
    headings = _HEADING.findall(rows)
    return f"{rows}\n{short_tail(now[1:] + tail, strategy, daily=bool(headings) and shows_dates(headings[-1]), question=question)}"


def _short(line: str, strategy: Strategy, *, daily: bool) -> str:
    if now := _NOW.fullmatch(line):
        return _now(now, daily=daily)
    if line.startswith(wording.FACTS):
        names = short_facts(strategy)
        texts = {name: text for name, _, text in (fact.partition("=") for fact in line.removeprefix(wording.FACTS).split())}
        return f"Facts {' '.join(texts.get(name, wording.UNKNOWN) for name in names)}\n" if names else ""
    if line == wording.NO_CHART_READER:
        return "No chart\n"
    if chart := _CHART.fullmatch(line):
        stale = f" {chart['stale']}" if chart["stale"] else ""
        seen = _RISE.sub(lambda rise: f"; rise in {rise[1]} " if rise[1] else "; rise ", chart["seen"]).replace(" on bars ", " ")
        return f"Chart {chart['bars']}{stale}: {seen}\n"
    return line


def _now(now: re.Match[str], *, daily: bool) -> str:
    day = f"day {now['day']}" if now["day"] else now["weekday"] if daily else f"{now['weekday']} {now['month']}{now['date']}"
    # What trades at all hours is said of the instrument, in the cached prefix.
    return f"Now {day}\n" if now["session"] == wording.ALWAYS_OPEN else f"Now {day} {now['session']}\n"
