"""The course of a run: history, the worker's start, then act after act, the outage among them, until all of it is decided."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Awaitable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from schemas import Candle, RunMode, Topic, VisionFeatures
from services.core.calendar import SessionCalendar
from services.core.ctrl_c import Interrupt
from services.core.settings import Settings
from services.demo.engine import SimulatorProcess
from services.demo.options import Vision
from services.demo.play import Player
from services.demo.screen import Screen
from services.demo.script import OUTAGE_S, Act, Phase, Script
from services.demo.stage import Stage
from services.demo.words import day_of, title
from services.feeds.samples import CALENDAR, load_instruments, load_splits
from services.fusion.prompt.prewarm import WarmCount
from services.vision.recorded import load_recorded

LATE_MS: Final = 200
"""By how much charts come after the wait is over, with `--vision late`."""
_DRAIN_S: Final = 20.0
_SETTLE_S: Final = 3.0
_UNDER_WAY_S: Final = 0.4
_LOOK_S: Final = 0.1
_CHUNK: Final = 250


@dataclass(frozen=True, slots=True)
class Run:
    """What is to be done. `simulator` is None when the engine is somebody else's."""

    settings: Settings
    script: Script
    simulator: SimulatorProcess | None
    vision: Vision
    seed: int
    folder: Path
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class Course:
    """What a run finds out on its way."""

    began_s: float = field(default_factory=time.monotonic)
    played_s: float = 0.0
    ended_s: float = 0.0
    outage_s: float | None = None
    warm_paced: WarmCount = field(default_factory=WarmCount)
    inputs_before: int = 0


async def set_up(run: Run, stage: Stage, shown: Screen, course: Course) -> None:
    """Load the history without triggering, then start the worker; raise BusError or SettingsError."""
    history = run.script.history
    shown.begin("setting up", f"Setting up: {len(history)} bars of history are loaded without triggering", len(history))
    # exchange-calendars imports pandas, which takes seconds once.
    await asyncio.to_thread(SessionCalendar.of, CALENDAR)
    symbols = {candle.symbol for candle in history} | {candle.symbol for act in run.script.acts for _, candle in act.bars}
    await stage.prepare(
        [one for one in load_instruments(RunMode.DEMO) if one.symbol in symbols],
        [one for one in load_splits(RunMode.DEMO) if one.symbol in symbols],
    )
    await stage.start_market()
    if run.vision is Vision.LIVE:
        await stage.start_vision()
    for start in range(0, len(history), _CHUNK):
        await stage.publish(Topic.CANDLES, [(candle.symbol, candle) for candle in history[start : start + _CHUNK]])
        await stage.until(lambda: stage.market.counts.records > shown.done - _CHUNK)
        shown.done = stage.market.counts.records
    await stage.until(lambda: _folded(stage, len(history)))
    shown.done = len(history)
    while await stage.length(Topic.MARKET_FEATURES) < stage.market.counts.features:  # noqa: ASYNC110 - acknowledgements under way
        await asyncio.sleep(_LOOK_S)
    course.inputs_before = await _inputs(stage)
    shown.note("the worker rebuilds its books from the log and sends its prefixes ahead to the engine")
    await stage.start_worker()
    course.played_s = time.monotonic()
    shown.note(f"set up in {course.played_s - course.began_s:.1f} s")


async def play(run: Run, stage: Stage, shown: Screen, course: Course, interrupt: Interrupt) -> int:
    """Play the acts and wait until all of it is decided; return how many records the worker was given."""
    late_ms = stage.settings.fusion.vision_wait_ms + LATE_MS if run.vision is Vision.LATE else 0
    player = Player(stage, _charts(run), late_ms=late_ms, seed=run.seed)

    def on_bar(candle: Candle) -> None:
        shown.done += 1
        shown.day_ms = candle.ts_close_ms

    for act in run.script.acts:
        if interrupt.requested.is_set():
            break
        if act.phase is Phase.OUTAGE:
            await stage.until(lambda: _settled(stage), _SETTLE_S)
        shown.begin(act.phase.value, title(act, stage.settings), len(act.bars))
        for note in _listings(run, act, stage.settings):
            shown.note(note)
        playing = stage.while_running(player.play(act, on_bar, interrupt.requested))
        if act.phase is Phase.OUTAGE and run.simulator is not None:
            course.outage_s = await _outage(run.simulator, playing, shown)
        else:
            await playing
        if act.phase is Phase.PACED:
            course.warm_paced = dataclasses.replace(stage.worker.prewarmer.count)
    shown.begin("draining", "Draining: what waits is decided, all is committed", 0)
    if interrupt.requested.is_set():
        shown.note("interrupted: no more bars; what has begun is decided and reported")
    await player.finish()
    await stage.until(lambda: _folded(stage, len(run.script.history) + player.bars), _DRAIN_S)
    inputs = await _inputs(stage) - course.inputs_before
    await stage.until(lambda: _decided(stage, inputs), _DRAIN_S)
    if shown.log_lines.held:
        shown.note(f"{shown.log_lines.held} log lines about the engine that was killed were held back; --verbose writes them")
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_S):
            await stage.while_running(stage.worker.prewarmer.idle())
    return inputs


async def _outage(simulator: SimulatorProcess, playing: Awaitable[None], shown: Screen) -> float:
    """Kill the engine, start it again when the outage's length is over, and return how long it did not answer."""
    shown.log_lines.expected = simulator.url.removeprefix("http://")

    async def away() -> float:
        # Some calls are under way by then, and are cut.
        await asyncio.sleep(_UNDER_WAY_S)
        shown.note("the engine's process is killed; bars go on")
        began_s = time.monotonic()
        await simulator.kill()
        await asyncio.sleep(OUTAGE_S)
        await simulator.start()
        away_s = time.monotonic() - began_s
        shown.note(f"the engine answers again after {away_s:.1f} s, with an empty cache")
        return away_s

    async with asyncio.TaskGroup() as tasks:
        back = tasks.create_task(away(), name="outage")
        await playing
    return back.result()


def _folded(stage: Stage, candles: int) -> bool:
    """Return whether every producer has dealt with so many candles."""
    return stage.market.counts.records >= candles and (stage.vision is None or stage.vision.counts.records >= candles)


def _settled(stage: Stage) -> bool:
    """Return whether every trigger so far has ended."""
    return stage.worker.accounts.outcomes.total() == stage.worker.accounts.triggers


def _decided(stage: Stage, inputs: int) -> bool:
    return stage.worker.accounts.records.total() >= inputs and _settled(stage)


async def _inputs(stage: Stage) -> int:
    return await stage.length(Topic.MARKET_FEATURES) + await stage.length(Topic.VISION_FEATURES)


def _charts(run: Run) -> Mapping[tuple[str, int], VisionFeatures]:
    return load_recorded() if run.vision in {Vision.RECORDED, Vision.LATE} else {}


def _listings(run: Run, act: Act, settings: Settings) -> Iterator[str]:
    """Tell of symbols that have no bar before this act: their first ones are blocked, and why."""
    seen = {candle.symbol for candle in run.script.history}
    for earlier in run.script.acts[: run.script.acts.index(act)]:
        seen |= {candle.symbol for _, candle in earlier.bars}
    for _, candle in act.bars:
        if candle.symbol not in seen:
            seen.add(candle.symbol)
            yield (
                f"{candle.symbol} is listed on {day_of(candle.ts_close_ms)}, in this part: until it has {settings.fusion.min_bars} bars, "
                "its triggers end `blocked` (min_bars), for so few show nothing"
            )
