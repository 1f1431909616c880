"""Runs `aquiline backtest` from its options to its report: new or resumed, with a progress bar, and stopped by Ctrl-C."""

from __future__ import annotations

import datetime as dt
import hashlib
import time
from pathlib import Path
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from services.backtest.backtest_plan import BacktestPlan, prepare
from services.backtest.blind_report import Finished, with_both
from services.backtest.checkpoint import FILES, Checkpoint, RunFolder, RunFolderError, read_checkpoint
from services.backtest.feed import Step
from services.backtest.request import BacktestRequest
from services.backtest.run_report import report_input
from services.backtest.runner import BacktestRunner
from services.core import logs
from services.core.ctrl_c import Interrupt, catch_ctrl_c
from services.core.settings import LogSettings
from services.scoring.report import build, to_html, to_terminal
from services.scoring.report.optional_packages import need
from services.scoring.report.trials import add_trial, trials_before

EXIT_DONE: Final = 0


BLIND: Final = "blind"
"""The folder, inside that of a run, of the same run with symbols and dates hidden."""


async def begin(options: BacktestRequest, path: Path, report: Path | None, *, resume: bool, restart: bool) -> int:
    """Run a backtest and print its report; return the exit code. Raise SettingsError, RunFolderError, BusError.

    A blind one is run twice, with symbols and dates shown and hidden, and reported on both.
    """
    logs.configure(LogSettings(level="warning"), service="backtest")
    if report is not None:
        # Checked now, not after hours of answers.
        for module in ("jinja2", "matplotlib"):
            need(module)
    err = Console(stderr=True)
    err.print("aquiline backtest: loading the data")
    if resume:
        if (found := read_checkpoint(path)) is None:
            raise RunFolderError(f"{path} holds no run to resume; start one without --resume")
        options = found.options
    interrupt = Interrupt()
    runs: list[Finished] = []
    with catch_ctrl_c(interrupt):
        for hidden in (False, True) if options.blind else (False,):
            ended = await _run(options, path / BLIND if hidden else path, err, interrupt, hidden=hidden, resume=resume, restart=restart)
            if ended is None:
                again = f"aquiline backtest --resume --folder {path}"
                err.print(f"stopped; continue with: {again}", highlight=False, markup=False, soft_wrap=True)
                return interrupt.exit_code
            runs.append(ended)
    if options.blind:
        runs = with_both(runs[0], runs[1])
    for one, page in zip(runs, [report, None if report is None else report.with_stem(f"{report.stem}-{BLIND}")], strict=False):
        _conclude(one, page)
    return EXIT_DONE


async def _run(
    options: BacktestRequest, path: Path, err: Console, interrupt: Interrupt, *, hidden: bool, resume: bool, restart: bool
) -> Finished | None:
    """Run once, and return the result; None when it was interrupted."""
    plan = await prepare(options, hidden=hidden)
    for note in plan.data_notes:
        err.print(Text(note), soft_wrap=True)
    found = read_checkpoint(path)
    checkpoint = _checkpoint(found, plan, path, resume=resume and found is not None, restart=restart)
    bar = _Bar(err, plan)
    with RunFolder(path, checkpoint) as folder:
        runner = BacktestRunner(plan, folder, bar.advance, lambda: not interrupt.requested.is_set())
        with bar:
            if not await runner.run():
                return None
        tried = _settings_hash(plan)
        given = report_input(plan, runner, folder, trials_before(path, plan.feed.fingerprint, tried))
        report = build(given)
        add_trial(path, plan.feed.fingerprint, tried, report)
        return Finished(plan, path, given, report, bar.elapsed_s)


def _settings_hash(plan: BacktestPlan) -> str:
    """Return a hash of all that shapes the report's figures: what shapes the run, and how its positions are sized."""
    return hashlib.sha256(f"{plan.fingerprint} {plan.settings.positions.model_dump_json()}".encode()).hexdigest()[:16]


def _checkpoint(found: Checkpoint | None, plan: BacktestPlan, path: Path, *, resume: bool, restart: bool) -> Checkpoint:
    if found is not None and resume:
        if found.fingerprint != plan.fingerprint:
            raise RunFolderError(f"data or settings have changed since the run in {path} was started; start again with --restart")
        return found
    if found is not None and not found.done and not restart:
        raise RunFolderError(
            f"{path} holds an unfinished run; continue it with --resume, discard it with --restart, or name another --folder"
        )
    return Checkpoint(plan.options, plan.fingerprint)


class _Bar:
    """The progress bar, and the elapsed time."""

    def __init__(self, console: Console, plan: BacktestPlan) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=console)
        self._plan = plan
        self._task: TaskID
        self._began_s = time.monotonic()

    def __enter__(self) -> Self:
        self._progress.start()
        self._task = self._progress.add_task(self._plan.feed.unit, total=self._plan.feed.total)
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def advance(self, step: Step) -> None:
        """Advance by a step."""
        self._progress.update(self._task, advance=step.size, description=_day(step.at_ms))

    @property
    def elapsed_s(self) -> float:
        """Return the seconds since the bar was created."""
        return time.monotonic() - self._began_s


def _conclude(run: Finished, page: Path | None) -> None:
    """Print the report, write its page where asked for, and name the files."""
    console = Console()
    to_terminal(run.report, console)
    if page is not None:
        try:
            page.write_text(to_html(run.report), encoding="utf-8")
        except OSError as error:
            raise RunFolderError(f"{page} cannot be written: {error.strerror}") from error
    feed = run.plan.feed
    left_out = "".join(f"; {count} left out: {why}" for why, count in sorted(feed.left_out.items()))
    written = [f"{run.path / name}" for name in FILES] + ([] if page is None else [str(page)])
    console.print(Text(f"{feed.total:,} {feed.unit} in {run.elapsed_s:.0f} s{left_out}"), soft_wrap=True)
    console.print(Text(f"Written: {', '.join(written)}"), soft_wrap=True)


def _day(ts_ms: int) -> str:
    return f"{dt.datetime.fromtimestamp(ts_ms / 1000, dt.UTC):%Y-%m-%d}"
