"""The report in a terminal: the same words and figures as the page, without its pictures."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from services.scoring.report import sheet
from services.scoring.report.model import Evidence, Report

_STYLES = {
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
    for table in sheet.tables(report):
        if not table.rows and not table.note:
            continue
        console.print()
        console.print(Text(table.title, style="bold underline"))
        if table.note:
            console.print(Text(table.note, style="dim"))
        if table.rows:
            console.print(_table(table))


def _table(shown: sheet.Sheet) -> Table:
    table = Table(box=SIMPLE_HEAD, show_header=bool(shown.header), pad_edge=False, padding=(0, 1))
    for number in range(len(shown.rows[0])):
        heading = shown.header[number] if shown.header else ""
        table.add_column(Text(heading), justify="right" if number and shown.numbers else "left", overflow="fold")
    for row in shown.rows:
        table.add_row(*map(Text, row))
    return table
