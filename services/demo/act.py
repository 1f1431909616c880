"""Plays one run: loads the history, starts the worker, plays phase after phase with the outage, and waits for every decision."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass, field
from typing import Final

from schemas import Candle, RunMode, Topic
from services.core.calendar import SessionCalendar
from services.core.ctrl_c import Interrupt
from services.demo.options import Vision
from services.demo.pipeline import Pipeline
from services.demo.plan import OUTAGE_S, Phase, PhasePlan, day_of
from services.demo.player import Player
from services.demo.sentences import title
from services.demo.setup import Demo
from services.demo.simulator import SimulatorProcess
from services.demo.terminal import Screen
from services.feeds.samples import CALENDAR, load_instruments, load_splits
from services.fusion.deliver.accounts import Accounts
from services.fusion.prompt.prewarm import WarmCount
from services.inference.engine import EngineInfo
from services.vision.recorded import load_recorded

LATE_MS: Final = 200
"""With `--vision late`, how long after the wait charts arrive."""
_DRAIN_S: Final = 20.0
_SETTLE_S: Final = 3.0
_CALLS_IN_FLIGHT_S: Final = 0.4
_CHUNK_BARS: Final = 250


@dataclass(slots=True)
class Measured:
    """What a run measures besides its results. Times are of the monotonic clock, in seconds."""

    started_s: float
    engine: EngineInfo
    own_engine: bool
    played_s: float = 0.0
    ended_s: float = 0.0
    outage_s: float | None = None
    interrupted: bool = False
    inputs: int = 0
    """Records on the input topics before the worker started; at the end, those that were added since."""
    warm_paced: WarmCount = field(default_factory=WarmCount)
    """Tokens sent ahead up to the end of the paced phase, set-up included."""
    warm: WarmCount = field(default_factory=WarmCount)
    accounts: Accounts = field(default_factory=Accounts)


async def load_and_start(demo: Demo, pipeline: Pipeline, screen: Screen, measured: Measured) -> None:
    """Load the history and start the worker; raise BusError or SettingsError."""
    history = demo.plan.history
    screen.begin("setting up", f"Setting up: loading {len(history)} bars of history, which trigger nothing", len(history))
    # exchange-calendars imports pandas, which takes seconds.
    await asyncio.to_thread(SessionCalendar.of, CALENDAR)
    symbols = {candle.symbol for candle in history} | {candle.symbol for plan in demo.plan.phases for _, candle in plan.bars}
    await pipeline.prepare(
        [one for one in load_instruments(RunMode.DEMO) if one.symbol in symbols],
        [one for one in load_splits(RunMode.DEMO) if one.symbol in symbols],
    )
    await pipeline.start_market()
    if demo.vision is Vision.LIVE:
        await pipeline.start_vision()
    for start in range(0, len(history), _CHUNK_BARS):
        await pipeline.publish(Topic.CANDLES, [(candle.symbol, candle) for candle in history[start : start + _CHUNK_BARS]])
        await pipeline.wait_until(lambda: pipeline.market.counts.records > screen.done - _CHUNK_BARS)
        screen.done = pipeline.market.counts.records
    await pipeline.wait_until(lambda: pipeline.processed(len(history)))
    await pipeline.market_settled()
    measured.inputs = await pipeline.inputs()
    screen.note("the worker rebuilds its books from the log and sends the prefixes ahead to the engine")
    await pipeline.start_worker()
    measured.accounts, measured.warm = pipeline.worker.accounts, pipeline.worker.prewarmer.count
    measured.played_s = time.monotonic()
    screen.note(f"set up in {measured.played_s - measured.started_s:.1f} s")


async def play(demo: Demo, pipeline: Pipeline, screen: Screen, measured: Measured, interrupt: Interrupt) -> None:
    """Play every phase, and wait until every trigger has its outcome."""
    late_ms = pipeline.settings.fusion.vision_wait_ms + LATE_MS if demo.vision is Vision.LATE else 0
    charts = load_recorded() if demo.vision in {Vision.RECORDED, Vision.LATE} else {}
    player = Player(pipeline, charts, late_ms=late_ms, seed=demo.seed)

    def on_bar(candle: Candle) -> None:
        screen.done += 1
        screen.day_ms = candle.ts_close_ms

    for plan in demo.plan.phases:
        if interrupt.requested.is_set():
            break
        if plan.phase is Phase.OUTAGE:
            await pipeline.wait_until(pipeline.settled, _SETTLE_S)
        screen.begin(plan.phase.value, title(plan, pipeline.settings), len(plan.bars))
        for listing in _listings(demo, plan):
            screen.note(listing)
        playing = pipeline.guard(player.play(plan, on_bar, interrupt.requested))
        if plan.phase is Phase.OUTAGE and demo.simulator is not None:
            measured.outage_s = await _with_outage(playing, demo.simulator, screen)
        else:
            await playing
        if plan.phase is Phase.PACED:
            measured.warm_paced = dataclasses.replace(measured.warm)
    screen.begin("draining", "Draining: the last triggers are decided and committed", 0)
    if interrupt.requested.is_set():
        screen.note("interrupted: no more bars are published; open triggers are decided and reported")
    await player.finish()
    await pipeline.wait_until(lambda: pipeline.processed(len(demo.plan.history) + player.bars), _DRAIN_S)
    measured.inputs = await pipeline.inputs() - measured.inputs
    measured.interrupted = interrupt.requested.is_set()
    await pipeline.wait_until(lambda: measured.accounts.records.total() >= measured.inputs and pipeline.settled(), _DRAIN_S)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_S):
            await pipeline.guard(pipeline.worker.prewarmer.idle())


async def _with_outage(playing: Awaitable[None], simulator: SimulatorProcess, screen: Screen) -> float:
    """Kill the engine while bars are played, restart it, and return for how many seconds it did not answer."""
    screen.log_output.hold(simulator.url.removeprefix("http://"))

    async def outage() -> float:
        await asyncio.sleep(_CALLS_IN_FLIGHT_S)
        screen.note("the engine's process is killed; bars keep coming")
        killed_s = time.monotonic()
        await simulator.kill()
        await asyncio.sleep(OUTAGE_S)
        await simulator.start()
        outage_s = time.monotonic() - killed_s
        screen.note(f"the engine answers again after {outage_s:.1f} s, with an empty cache")
        return outage_s

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(outage(), name="outage")
        await playing
    return task.result()


def _listings(demo: Demo, plan: PhasePlan) -> Iterator[str]:
    """Announce symbols whose first bar is in this phase, because their first triggers are blocked."""
    earlier = demo.plan.phases[: demo.plan.phases.index(plan)]
    known = {candle.symbol for candle in demo.plan.history} | {candle.symbol for one in earlier for _, candle in one.bars}
    first_bars = {candle.symbol: candle for _, candle in reversed(plan.bars) if candle.symbol not in known}
    for symbol, candle in first_bars.items():
        yield (
            f"{symbol} is listed on {day_of(candle.ts_close_ms)}: its triggers end `blocked` (min_bars) until it has "
            f"{demo.settings.fusion.min_bars} bars"
        )
