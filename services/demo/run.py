"""Runs the demo from empty topics to the closing checks and the files."""

from __future__ import annotations

import time
from typing import Final

from rich.console import Console
from rich.text import Text

from services.core.bus.connect import connect
from services.core.clock import SystemClock
from services.core.ctrl_c import Interrupt, RunInterruptedError, catch_ctrl_c, run_unless_interrupted
from services.core.settings import Settings, SettingsError
from services.demo.act import Measured, load_and_start, play
from services.demo.checks import Check, closing_checks
from services.demo.follower import Follower
from services.demo.log_output import LogOutput
from services.demo.pipeline import running_pipeline
from services.demo.report import AUDIT, LOG, REPORT, SIGNALS, Report, make_report, write_files
from services.demo.results import Results
from services.demo.sentences import banner, next_commands, summary
from services.demo.setup import Demo
from services.demo.terminal import BANNER_STYLE, Screen, checks_table
from services.fusion.service import connect_engine
from services.inference.engine import EngineError, EngineInfo
from services.replay.export_log import export_all

EXIT_DONE: Final = 0
EXIT_WRONG: Final = 1
_SIGNALLED: Final = 128


async def run_demo(demo: Demo, console: Console, log_output: LogOutput) -> int:
    """Run, and return the exit code: 0, 1 when a closing check fails, 128 plus the signal's number after an interrupt.

    Raises SettingsError, BusError or EngineStartError when the demo cannot run.
    """
    interrupt = Interrupt()
    with catch_ctrl_c(interrupt):
        # The user's own engine names itself in the banner; it is the simulator otherwise.
        engine = None if demo.simulator else await _engine_info(demo.settings)
        with Screen(console, banner(engine), log_output) as screen:
            try:
                report, checks = await _run(demo, screen, interrupt)
            except RunInterruptedError:
                screen.note("interrupted during set-up: nothing was played and no file is written")
                return _SIGNALLED + interrupt.signal_number
            finally:
                if demo.simulator is not None:
                    await demo.simulator.kill()
            screen.phase = "done"
    _print_closing(console, screen.banner, report, checks)
    if not all(one.ok for one in checks):
        return EXIT_WRONG
    return _SIGNALLED + interrupt.signal_number if interrupt.requested.is_set() else EXIT_DONE


async def _run(demo: Demo, screen: Screen, interrupt: Interrupt) -> tuple[Report, list[Check]]:
    """Set up, play, drain, write the files."""
    started_s, clock, results, settings = time.monotonic(), SystemClock(), Results(demo.plan), demo.settings
    for note in demo.notes:
        screen.note(note)
    if demo.simulator is not None:
        screen.note("starting the simulator, a process of its own")
        await run_unless_interrupted(interrupt, demo.simulator.start())
        settings = settings.model_copy(update={"engine": settings.engine.model_copy(update={"urls": [demo.simulator.url]})})
    measured = Measured(started_s, await _engine_info(settings), demo.simulator is not None)
    async with running_pipeline(connect(settings.bus, clock), settings, clock) as pipeline, screen.drawing():
        await run_unless_interrupted(interrupt, load_and_start(demo, pipeline, screen, measured))
        screen.results, screen.warm = results, measured.warm
        follower = Follower(pipeline.bus, settings, results, screen.ended)
        async with follower.following():
            await play(demo, pipeline, screen, measured, interrupt)
            await pipeline.stop()
        await follower.finish()
        if screen.log_output.held:
            screen.note(f"{screen.log_output.held} log lines about the killed engine are not shown; --verbose shows them")
        await export_all(pipeline.bus, settings, demo.folder / LOG)
    measured.ended_s = time.monotonic()
    checks = closing_checks(measured.accounts, results, measured.inputs)
    report = make_report(settings, pipeline.bus.address, measured, results, checks)
    write_files(demo.folder, report, follower.signal_lines, follower.audit_lines)
    return report, checks


def _print_closing(console: Console, banner_text: str, report: Report, checks: list[Check]) -> None:
    console.print(checks_table(checks))
    console.print(Text(summary(report)), soft_wrap=not console.is_terminal)
    console.print(Text(f"Files: {REPORT}, {SIGNALS}, {AUDIT}, {LOG}"), soft_wrap=True)
    console.print(Text("Try next:"))
    for command, what in next_commands(report["bus"]):
        console.print(Text.assemble("  ", (command, "bold"), (f"   # {what}", "dim")), soft_wrap=True)
    console.print(Text(f" {banner_text} ", BANNER_STYLE), soft_wrap=True)


async def _engine_info(settings: Settings) -> EngineInfo:
    """Return what the engine says of itself; raise SettingsError when it does not answer."""
    engine = connect_engine(settings.engine, SystemClock())
    try:
        return await engine.info()
    except EngineError as error:
        where = " ".join(settings.engine.urls)
        raise SettingsError(
            f"the engine at {where} does not answer: {error.detail}. Start it, or leave --engine out and the demo starts its simulator"
        ) from error
    finally:
        await engine.close()
