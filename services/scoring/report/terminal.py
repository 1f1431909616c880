"""The report in a terminal: the same words and figures as the page, without its pictures."""

from __future__ import annotations

from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console, JustifyMethod
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from services.scoring.report import report_tables
from services.scoring.report.model import Evidence, Report

_SHORT: Final = 10
"""Letters of a heading that stay on one line."""
_STYLES: Final = {
    Evidence.NOTHING: "yellow",
    Evidence.TOO_FEW: "yellow",
    Evidence.NONE: "yellow",
    Evidence.SKILL: "green",
    Evidence.HARM: "red",
}


def to_terminal(report: Report, console: Console) -> None:
    """Print the report. Nothing in it is read as markup."""
    console.print(Text(report.title, style="bold"))
    if report.banner is not None:
        console.print(Panel(Text(report.banner, style="bold"), border_style="red"))
    console.print(Panel(Text(report.verdict.sentence, style="bold"), border_style=_STYLES[report.verdict.evidence]))
    for caution in report.cautions:
        console.print(Text(f"Note: {caution}", style="yellow"))
    for table in report_tables.tables(report):
        if not table.rows and not table.note:
            continue
        console.print()
        console.print(Text(table.title, style="bold underline"))
        if table.note:
            console.print(Text(table.note, style="dim"))
        if table.rows:
            console.print(_fitting(table, console))


def _fitting(shown: report_tables.Sheet, console: Console) -> Table:
    """Return the table on one line a row if that fits, else with intervals below their figures, else folded: nothing is cut off."""
    unbounded = console.options.update(max_width=10_000)
    for broken in (False, True):
        table = _table(shown, broken=broken, folded=False)
        if not shown.numbers or console.measure(table, options=unbounded).maximum <= console.width:
            return table
    return _table(shown, broken=True, folded=True)


def _table(shown: report_tables.Sheet, *, broken: bool, folded: bool) -> Table:
    table = Table(box=SIMPLE_HEAD, show_header=bool(shown.header), pad_edge=False, collapse_padding=True, padding=(0, 1))
    for number in range(len(shown.rows[0])):
        heading = _in_two(shown.header[number]) if shown.header else ""
        prose = not shown.numbers and number > 0
        justify: JustifyMethod = "right" if shown.numbers and number > 0 else "left"
        table.add_column(Text(heading), justify=justify, overflow="fold", no_wrap=not (prose or folded))
    for row in shown.rows:
        table.add_row(*(Text(cell.replace(" (", "\n(") if broken and shown.numbers else cell) for cell in row))
    return table


def _in_two(heading: str) -> str:
    """Return a heading on two lines, broken at the space nearest to its middle."""
    spaces = [place for place, letter in enumerate(heading) if letter == " "]
    if not spaces or len(heading) <= _SHORT:
        return heading
    place = min(spaces, key=lambda at: abs(at - len(heading) / 2))
    return f"{heading[:place]}\n{heading[place + 1 :]}"
