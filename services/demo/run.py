"""Runs the demo: one act after another on one bus, then the report with its closing checks, and the files."""

from __future__ import annotations

import time
from typing import Final

from rich.table import Table
from rich.text import Text

from services.core.bus.connect import connect
from services.core.clock import SystemClock
from services.core.ctrl_c import Interrupt, RunInterruptedError, catch_ctrl_c, run_unless_interrupted
from services.core.settings import SettingsError
from services.demo.act import ActResult, ActRun
from services.demo.options import Vision
from services.demo.pipeline import engine_of, running_pipeline
from services.demo.report import AUDIT, LOG, REPORT, SIGNALS, Report, make_report, write_files
from services.demo.screen import BANNER_STYLE, Screen
from services.demo.sentences import NO_ADVICE, next_commands, summary
from services.demo.setup import Demo
from services.inference.child_server import ServerStartError
from services.replay.export_log import export_all

EXIT_DONE: Final = 0
EXIT_WRONG: Final = 1
_SIGNALLED: Final = 128


async def run_demo(demo: Demo, screen: Screen) -> int:
    """Run, and return the exit code: 0, 1 when a closing check fails, 128 plus the signal's number after an interrupt.

    Raises SettingsError, BusError or ServerStartError when the demo cannot run.
    """
    interrupt = Interrupt()
    with catch_ctrl_c(interrupt):
        try:
            report = await _run(demo, screen, interrupt)
        except RunInterruptedError:
            screen.note("interrupted during set-up: nothing was played and no file is written")
            return _SIGNALLED + interrupt.signal_number
    _print_closing(screen, report)
    if not all(check["ok"] for act in report["acts"] for check in act["sums"]):
        return EXIT_WRONG
    return _SIGNALLED + interrupt.signal_number if interrupt.requested.is_set() else EXIT_DONE


async def _run(demo: Demo, screen: Screen, interrupt: Interrupt) -> Report:
    """Play the acts, write the files, and return the report."""
    started_s, clock, last = time.monotonic(), SystemClock(), demo.acts[-1]
    if last.engine is None:
        await engine_of(last.settings)  # before topics are emptied
    played: list[ActResult] = []
    async with running_pipeline(connect(last.settings.bus, clock, last.settings.topics), last.settings, clock) as pipeline:
        drawing = pipeline.spawn(screen.draw(), "draw")
        symbols = {candle.symbol for act in demo.acts for candle in act.plan.candles}
        await run_unless_interrupted(interrupt, pipeline.start(symbols, live_vision=demo.options.vision is Vision.LIVE))
        if demo.options.console:
            try:
                screen.line(f"Console: {await pipeline.start_console()}", "bold")
            except SettingsError as error:
                screen.note(f"no console: {error}")
        for act in demo.acts:
            if played and interrupt.requested.is_set():
                break
            try:
                played.append(await ActRun(act, demo, pipeline, screen, interrupt).play())
            except ServerStartError as error:
                if not act.has_model:
                    raise
                screen.note(f"the real model is not available, so the simulator plays alone: {error}")
        screen.phase = "done"
        drawing.cancel()
        await pipeline.stop()
        await export_all(pipeline.bus, [one.settings for one in played], demo.folder / LOG)
    duration_s, interrupted = time.monotonic() - started_s, interrupt.requested.is_set()
    report = make_report(played, pipeline.bus.address, last.settings.redis.url, interrupted=interrupted, duration_s=duration_s)
    write_files(demo.folder, report, played)
    return report


def _print_closing(screen: Screen, report: Report) -> None:
    screen.stop()
    for act in report["acts"]:
        screen.line(f"══ {summary(act)}", "bold")
        checks = Table(box=None, padding=(0, 1), show_header=False)
        for one in act["sums"]:
            checks.add_row(Text("OK", "bold green") if one["ok"] else Text("WRONG", "bold red"), one["what"], Text(one["said"], "dim"))
        screen.line(checks)
    screen.line(f"Files: {REPORT}, {SIGNALS}, {AUDIT}, {LOG}\nTry next:")
    for command, what in next_commands(report["bus"]):
        screen.line(Text.assemble("  ", (command, "bold"), (f"   # {what}", "dim")))
    screen.line(f" DEMO: {NO_ADVICE} ", BANNER_STYLE)
