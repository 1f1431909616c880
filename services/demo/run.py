"""Runs the demo: one act after another on one bus, then the closing checks and the files."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from rich.text import Text

from schemas import RunMode, Topic
from services.core.bus.connect import connect
from services.core.calendar import SessionCalendar
from services.core.clock import SystemClock
from services.core.ctrl_c import Interrupt, RunInterruptedError, catch_ctrl_c, run_unless_interrupted
from services.core.settings import Settings, SettingsError
from services.demo.act import ActResult, ActRun
from services.demo.options import Vision
from services.demo.pipeline import Pipeline, running_pipeline
from services.demo.report import AUDIT, LOG, REPORT, SIGNALS, Report, make_report, write_files
from services.demo.sentences import banner, heading, next_commands, summary
from services.demo.setup import Act, Demo
from services.demo.terminal import BANNER_STYLE, Screen, checks_table
from services.feeds.samples import CALENDAR, load_instruments, load_splits
from services.fusion.service import connect_engine
from services.inference.child_server import ServerStartError
from services.inference.engine import EngineError, EngineInfo
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
            acts, report = await _run(demo, screen, interrupt)
        except RunInterruptedError:
            screen.note("interrupted during set-up: nothing was played and no file is written")
            return _SIGNALLED + interrupt.signal_number
    _print_closing(screen, acts, report)
    if not all(check.ok for act in acts for check in act.checks):
        return EXIT_WRONG
    return _SIGNALLED + interrupt.signal_number if interrupt.requested.is_set() else EXIT_DONE


async def _run(demo: Demo, screen: Screen, interrupt: Interrupt) -> tuple[list[ActResult], Report]:
    """Play the acts and write the files."""
    started_s, clock, settings = time.monotonic(), SystemClock(), demo.acts[-1].settings
    if demo.acts[-1].engine is None:
        await _engine_info(settings)  # before topics are emptied
    played: list[ActResult] = []
    async with running_pipeline(connect(settings.bus, clock), settings, clock) as pipeline:
        drawing = pipeline.spawn(screen.draw(), "draw")
        await run_unless_interrupted(interrupt, _start(demo, pipeline))
        configurations: list[Settings] = []
        if demo.console:
            try:
                screen.line(Text(f"Console: {await pipeline.start_console(configurations)}", "bold"))
            except SettingsError as error:
                screen.note(f"no console: {error}")
        for act in demo.acts:
            if played and interrupt.requested.is_set():
                break
            try:
                played.append(await _play(act, demo, pipeline, screen, interrupt, configurations=configurations))
            except ServerStartError as error:
                if not act.has_model:
                    raise
                screen.note(f"the real model is not available, so the simulator plays alone: {error}")
            finally:
                if act.engine is not None:
                    await act.engine.kill()
        screen.phase = "done"
        drawing.cancel()
        await pipeline.stop()
        await export_all(pipeline.bus, [one.settings for one in played], demo.folder / LOG)
    duration_s = time.monotonic() - started_s
    report = make_report(played, pipeline.bus.address, settings.redis.url, interrupted=interrupt.requested.is_set(), duration_s=duration_s)
    write_files(demo.folder, report, played)
    return played, report


async def _start(demo: Demo, pipeline: Pipeline) -> None:
    # exchange-calendars imports pandas, which takes seconds.
    await asyncio.to_thread(SessionCalendar.of, CALENDAR)
    symbols = {candle.symbol for act in demo.acts for candle in act.plan.candles}
    instruments = [(Topic.INSTRUMENTS, one.symbol, one) for one in load_instruments(RunMode.DEMO) if one.symbol in symbols]
    splits = [(Topic.INSTRUMENT_EVENTS, one.symbol, one) for one in load_splits(RunMode.DEMO) if one.symbol in symbols]
    await pipeline.start([*instruments, *splits])
    if demo.vision is Vision.LIVE:
        await pipeline.start_vision()


async def _play(
    act: Act, demo: Demo, pipeline: Pipeline, screen: Screen, interrupt: Interrupt, *, configurations: list[Settings]
) -> ActResult:
    """Start the act's engine and play the act; raise ServerStartError."""
    settings = act.settings
    if act.engine is not None:
        settings = await run_unless_interrupted(interrupt, act.engine.start(settings, screen.note))
    configurations.append(settings)
    engine = await _engine_info(settings)
    screen.begin_act(
        heading(demo.acts.index(act) + 1, len(demo.acts), engine, real_model=act.has_model), banner(engine, real_model=act.has_model)
    )
    for note in demo.notes:
        screen.note(note)
    return await ActRun(act, demo, pipeline, screen, interrupt).play(settings, engine)


def _print_closing(screen: Screen, acts: Sequence[ActResult], report: Report) -> None:
    screen.stop()
    for act, act_report in zip(acts, report["acts"], strict=True):
        screen.line(Text(f"══ {summary(act_report)}", "bold"))
        screen.line(checks_table(act.checks))
    screen.line(f"Files: {REPORT}, {SIGNALS}, {AUDIT}, {LOG}\nTry next:")
    for command, what in next_commands(report["bus"]):
        screen.line(Text.assemble("  ", (command, "bold"), (f"   # {what}", "dim")))
    screen.line(Text(" DEMO: the prices are old. Nothing on this screen is advice. ", BANNER_STYLE))


async def _engine_info(settings: Settings) -> EngineInfo:
    """Return what the engine says of itself; raise SettingsError when it does not answer."""
    engine = connect_engine(settings.engine, SystemClock())
    try:
        return await engine.info()
    except EngineError as error:
        where = " ".join(settings.engine.urls)
        raise SettingsError(
            f"the engine at {where} does not answer: {error.detail}. Start it, or leave --engine out and the demo starts its own"
        ) from error
    finally:
        await engine.close()
