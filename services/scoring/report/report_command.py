"""Runs `aquiline score report`: reads the inputs, builds the report, prints it, and writes the HTML page."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from schemas.base import SYMBOL_PATTERN
from services.core.bus.connect import connect
from services.core.clock import SystemClock
from services.core.errors import ServiceError
from services.core.settings import Settings, SettingsError, load
from services.scoring.report import ReportInput, build, to_html, to_terminal
from services.scoring.report.html_page import need_page
from services.scoring.report.input_selection import OutcomeFilter, ReportSources
from services.scoring.report.inputs_from_files import Files, read_files
from services.scoring.report.inputs_from_topics import read_topics
from services.scoring.report.number_format import moment
from services.scoring.report.position_sizing import Sizing
from services.scoring.report.trials import promotions_before, trials_beside

__all__ = ["Files", "ReportRequest", "run"]


@dataclass(frozen=True, slots=True)
class ReportRequest:
    """The options of the command."""

    since_ms: int | None
    until_ms: int | None
    symbols: frozenset[str]
    cost_bps: float | None
    out: Path | None
    bus: str | None
    config: Path | None


async def run(asked: ReportRequest, files: Files | None) -> None:
    """Build and print the report; raise SettingsError, BusError, ServiceError."""
    settings = load(asked.config, {} if asked.bus is None else {"bus": {"url": asked.bus}})
    wanted = _wanted(asked)
    if asked.out is not None:
        _check(asked.out)
    err = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        found = await _from_topics(settings, wanted, progress) if files is None else read_files(files, wanted, progress)
    for note in found.notes:
        err.print(f"aquiline score report: {note}", style="yellow", markup=False, highlight=False)
    cost_bps = settings.scoring.cost_bps + settings.scoring.slippage_bps if asked.cost_bps is None else asked.cost_bps
    with err.status("computing the baselines"):
        report = build(
            ReportInput(
                title=_title(found, wanted),
                outcomes=found.outcomes,
                bars=found.bars,
                cost_bps=cost_bps,
                facts=_facts(found.facts, asked),
                restatements=found.restatements,
                max_jump=settings.fusion.max_jump,
                changes=found.changes,
                sizing=Sizing.of(settings.positions),
                trials=promotions_before(asked.config) if files is None else trials_beside(files.outcomes),
            )
        )
        page = None if asked.out is None else to_html(report)
    to_terminal(report, Console())
    if asked.out is not None and page is not None:
        try:
            asked.out.write_text(page, encoding="utf-8")
        except OSError as error:
            raise ServiceError(f"--out {str(asked.out)!r} cannot be written: {error.strerror}") from error
        err.print(f"wrote {asked.out}", markup=False, highlight=False)


def _wanted(asked: ReportRequest) -> OutcomeFilter:
    for symbol in asked.symbols:
        if re.match(SYMBOL_PATTERN, symbol) is None:
            raise SettingsError(f"--symbol {symbol!r} is not a symbol with its venue, such as AAPL.XNAS")
    if asked.since_ms is not None and asked.until_ms is not None and asked.since_ms >= asked.until_ms:
        raise SettingsError("--since must be before --until")
    return OutcomeFilter(asked.since_ms, asked.until_ms, asked.symbols)


def _check(out: Path) -> None:
    """Raise before anything is read when the page cannot be built or written."""
    need_page()
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise SettingsError(f"--out {str(out)!r} cannot be written: name a file in an existing folder")


async def _from_topics(settings: Settings, wanted: OutcomeFilter, progress: Progress) -> ReportSources:
    if settings.bus.url.startswith("memory:"):
        raise SettingsError("bus.url is memory://, which no other process can read; name a kafka:// bus, or --outcomes")
    bus = connect(settings.bus, SystemClock(), settings.topics)
    try:
        return await read_topics(bus, settings, wanted, progress)
    finally:
        await bus.close()


def _title(found: ReportSources, wanted: OutcomeFilter) -> str:
    modes = sorted({outcome.run_mode.value for outcome in found.outcomes})
    of = f" of {', '.join(sorted(wanted.symbols))}" if 0 < len(wanted.symbols) <= 3 else ""  # noqa: PLR2004 - a title is short
    return f"Signals{of}{f', run mode {modes[0]}' if len(modes) == 1 else ''}: were they any good?"


def _facts(facts: Mapping[str, str], asked: ReportRequest) -> dict[str, str]:
    bounds = {"Ended since": asked.since_ms, "Ended before": asked.until_ms}
    return dict(facts) | {name: f"{moment(at_ms)} UTC" for name, at_ms in bounds.items() if at_ms is not None}
