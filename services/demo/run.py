"""One run of the demo, from empty topics to the closing sums."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator
from typing import Final

from rich.console import Console
from rich.text import Text

from schemas import AuditRecord
from services.core.bus.connect import connect
from services.core.clock import SystemClock
from services.core.ctrl_c import Interrupt, RunInterruptedError, catch_ctrl_c, run_unless_interrupted
from services.core.settings import Settings, SettingsError
from services.demo.course import Course, Run, play, set_up
from services.demo.loglines import LogLines
from services.demo.report import AUDIT, LOG, REPORT, SIGNALS, Facts, Report, make_report, write_files
from services.demo.screen import BANNER_STYLE, Screen, closing_table
from services.demo.stage import staged
from services.demo.sums import Sum, closing_sums
from services.demo.tally import Tally
from services.demo.watch import Watcher
from services.demo.words import banner, next_commands, summary
from services.fusion.service import connect_engine
from services.inference.engine import EngineError, EngineInfo
from services.replay.export_log import export_all

EXIT_DONE: Final = 0
EXIT_OFF: Final = 1
_SIGNALLED: Final = 128
_DRAW_S: Final = 0.25


async def show(run: Run, console: Console, log_lines: LogLines) -> int:
    """Do the run, and return the exit code: 0, 1 when a sum is off, 128 + the signal's number when one interrupted it.

    Raises SettingsError, BusError or EngineStartError when it cannot be done.
    """
    interrupt = Interrupt()
    with catch_ctrl_c(interrupt):
        info = None if run.simulator else await _engine_of(run.settings)
        said = banner(info.source if info else None, info.name if info else "")
        with Screen(console, said, log_lines) as shown:
            try:
                report, sums = await _perform(run, shown, interrupt)
            except RunInterruptedError:
                shown.note("interrupted while setting up: nothing was played, nothing is written")
                return _SIGNALLED + interrupt.signal_number
            finally:
                if run.simulator is not None:
                    await run.simulator.kill()
            shown.phase = "done"
    _close(console, said, report, sums)
    if not all(one.ok for one in sums):
        return EXIT_OFF
    return _SIGNALLED + interrupt.signal_number if interrupt.requested.is_set() else EXIT_DONE


async def _perform(run: Run, shown: Screen, interrupt: Interrupt) -> tuple[Report, list[Sum]]:
    """Set up, play, drain, write the files."""
    clock = SystemClock()
    tally, course = Tally(run.script), Course()
    for note in run.notes:
        shown.note(note)
    if run.simulator is not None:
        shown.note("the simulator starts, a process of its own")
        await run_unless_interrupted(interrupt, run.simulator.start())
        run = dataclasses.replace(run, settings=_at(run.settings, run.simulator.url))
    async with staged(connect(run.settings.bus, clock), run.settings, clock) as stage, _drawing(shown):
        await run_unless_interrupted(interrupt, set_up(run, stage, shown, course))
        shown.tally, shown.warm = tally, lambda: stage.worker.prewarmer.count
        watcher = Watcher(stage.bus, run.settings, tally, lambda audit: _tell(shown, tally, audit))
        await watcher.start()
        async with _watching(watcher):
            inputs = await play(run, stage, shown, course, interrupt)
            await stage.stop()
        await watcher.finish()
        await export_all(stage.bus, run.settings, run.folder / LOG)
    course.ended_s = time.monotonic()
    accounts = stage.worker.accounts
    sums = closing_sums(accounts, tally, inputs)
    facts = Facts(
        settings=run.settings,
        bus=stage.bus.address,
        engine=await _engine_if_it_answers(run.settings),
        own_engine=run.simulator is not None,
        setup_s=course.played_s - course.began_s,
        duration_s=course.ended_s - course.played_s,
        outage_s=course.outage_s,
        interrupted=interrupt.requested.is_set(),
        warm_paced=course.warm_paced,
        warm=stage.worker.prewarmer.count,
    )
    report = make_report(facts, accounts, tally, sums)
    write_files(run.folder, report, watcher.signal_lines, watcher.audit_lines)
    return report, sums


def _tell(shown: Screen, tally: Tally, audit: AuditRecord) -> None:
    shown.ended(audit, tally.signals.get(audit.signal_id) if audit.signal_id is not None else None, tally.phase_of(audit))


async def _engine_of(settings: Settings) -> EngineInfo:
    """Return the named engine's own words before anything is played and written; raise SettingsError when it says none."""
    try:
        return await _engine_info(settings)
    except EngineError as error:
        where = " ".join(settings.engine.urls)
        raise SettingsError(
            f"the engine at {where} does not answer: {error.detail}. Start it, or leave --engine out and the demo brings its own simulator"
        ) from error


async def _engine_if_it_answers(settings: Settings) -> EngineInfo | None:
    try:
        return await _engine_info(settings)
    except EngineError:
        return None  # the worker went on without, and its outcomes say so


async def _engine_info(settings: Settings) -> EngineInfo:
    engine = connect_engine(settings.engine, SystemClock())
    try:
        return await engine.info()
    finally:
        await engine.close()


def _at(settings: Settings, url: str) -> Settings:
    return settings.model_copy(update={"engine": settings.engine.model_copy(update={"urls": [url]})})


def _close(console: Console, said: str, report: Report, sums: list[Sum]) -> None:
    console.print(closing_table(sums))
    console.print(Text(summary(report)), soft_wrap=not console.is_terminal)
    console.print(Text(f"Written: {REPORT}, {SIGNALS}, {AUDIT}, {LOG}"), soft_wrap=True)
    console.print(Text("Worth trying next:"))
    for command, why in next_commands(report["bus"]):
        console.print(Text.assemble("  ", (command, "bold"), (f"   # {why}", "dim")), soft_wrap=True)
    console.print(Text(f" {said} ", BANNER_STYLE), soft_wrap=True)


@contextlib.asynccontextmanager
async def _watching(watcher: Watcher) -> AsyncIterator[None]:
    task = asyncio.create_task(watcher.run(), name="watch")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def _drawing(shown: Screen) -> AsyncIterator[None]:
    async def draw() -> None:
        while True:
            shown.refresh()
            await asyncio.sleep(_DRAW_S)

    task = asyncio.create_task(draw(), name="draw")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
