"""Runs the demo: plays its acts on one pipeline, phase after phase, then prints the closing checks and writes the files."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import secrets
import time
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from random import Random
from typing import Final

from pydantic import SecretStr

from schemas import Candle, VisionFeatures
from services.console.service import ConsoleService
from services.console.worker_metrics import own_page
from services.core.bus.connect import connect
from services.core.clock import SystemClock
from services.core.ctrl_c import Interrupt, RunInterruptedError, catch_ctrl_c, run_unless_interrupted
from services.core.health import Health
from services.core.settings import Settings, SettingsError
from services.demo.plan import OUTAGE_S, Phase, PhasePlan
from services.demo.report import LOG, ActResult, Report, make_report, write_files
from services.demo.screen import Screen
from services.demo.setup import MODEL_ACT, Act, Demo, engine_of
from services.feeds.samples import load_instruments, load_splits
from services.inference.child_server import ServerStartError
from services.inference.own_engine import OwnEngine
from services.pipeline.outputs import Outputs
from services.pipeline.pipeline import Pipeline, running_pipeline, wait_until
from services.replay.export_log import export_all
from services.vision.forecaster import ForecasterError
from services.vision.loading import load_forecaster
from services.vision.recorded import load_recorded

PARTITIONS: Final = 4
"""Partitions of topics that the demo creates."""
CHART_DELAY: Final = (0.03, 0.09)
"""Shortest and longest delay of a chart's features after its bar, as a share of the time from bar to bar.

A share, because the demo compresses time: a burst at ten times the pace stands for the same market and the same detector.
"""
STEP_S: Final = 1.0
"""The time from bar to bar that is assumed where bars wait for decisions."""
LATE_MS: Final = 200
"""With `--vision late`, how long after the wait charts arrive."""
_DRAIN_S: Final = 20.0
_SETTLE_S: Final = 3.0
_CALLS_IN_FLIGHT_S: Final = 0.4


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
            return interrupt.exit_code
    screen.close(report)
    return interrupt.exit_code if all(check["ok"] for act in report["acts"] for check in act["sums"]) else 1


async def _run(demo: Demo, screen: Screen, interrupt: Interrupt) -> Report:
    """Play the acts, write the files, and return the report."""
    started_s, clock, settings = time.monotonic(), SystemClock(), demo.acts[-1].settings
    if demo.acts[-1].engine is None:
        await engine_of(settings)  # before topics are emptied
    played: list[ActResult] = []
    async with running_pipeline(connect(settings.bus, clock, settings.topics), settings, clock) as pipeline:
        drawing = pipeline.spawn(screen.draw(), "draw")
        player = _Player(demo, pipeline, screen, interrupt)
        await run_unless_interrupted(interrupt, player.start())
        if demo.options.console:
            await _start_console(pipeline, settings, screen)
        for act in demo.acts:
            if played and interrupt.requested.is_set():
                break
            try:
                played.append(await player.play(act))
            except ServerStartError as error:
                if act.name != MODEL_ACT:
                    raise
                screen.note(f"the real model is not available, so the simulator plays alone: {error}")
        screen.phase = "done"
        drawing.cancel()
        await pipeline.stop()
        await export_all(pipeline.bus, [one.settings for one in played], demo.folder / LOG)
    duration_s, interrupted = time.monotonic() - started_s, interrupt.requested.is_set()
    report = make_report(played, pipeline.bus.address, settings.redis.url, interrupted=interrupted, duration_s=duration_s)
    write_files(demo.folder, report, played)
    return report


async def _start_console(pipeline: Pipeline, settings: Settings, screen: Screen) -> None:
    """Start the console, and show its address with the token of this run or, when its port is in use, why there is none."""
    token = settings.console.token or SecretStr(secrets.token_urlsafe(16))
    # The console rebuilds prompts with the settings of each worker.
    pipeline.configurations.append(settings.model_copy(update={"console": settings.console.model_copy(update={"token": token})}))
    try:
        console = ConsoleService(pipeline.bus, pipeline.configurations, SystemClock(), health := Health(), pages=own_page)
    except SettingsError as error:
        return screen.note(f"no console: {error}")
    await pipeline.start("console", console, health)
    return screen.line(f"Console: {console.url}/#token={token.get_secret_value()}", "bold")


class _Player:
    """Plays acts on a running pipeline."""

    def __init__(self, demo: Demo, pipeline: Pipeline, screen: Screen, interrupt: Interrupt) -> None:
        self._demo = demo
        self._pipeline = pipeline
        self._screen = screen
        self._interrupt = interrupt
        self._stopped = interrupt.requested.is_set
        self._charts = load_recorded() if demo.options.vision in {"recorded", "late"} else {}
        self._random = Random(demo.options.seed)  # noqa: S311 - a demo's jitter

    async def start(self) -> None:
        """Publish what is known of the stocks, and start the market service and, for live charts, the vision service."""
        settings, forecaster = self._demo.acts[-1].settings, None
        await self._pipeline.open_topics(load_instruments(settings.run_mode), load_splits(settings.run_mode), PARTITIONS)
        if self._demo.options.vision == "live":
            try:
                forecaster = await asyncio.to_thread(load_forecaster, settings.vision.weights_file, device=settings.vision.device)
            except ForecasterError as error:
                raise SettingsError(f"--vision live: {error}; or play the recorded features: --vision recorded") from error
        await self._pipeline.start_features(forecaster)

    async def play(self, act: Act) -> ActResult:
        """Play an act; raise ServerStartError, and RunInterruptedError when interrupted before its first bar."""
        settings, pipeline, screen, acts = act.settings, self._pipeline, self._screen, self._demo.acts
        async with contextlib.AsyncExitStack() as at_end:
            if act.engine is not None:
                at_end.push_async_callback(act.engine.kill)
                settings = await run_unless_interrupted(self._interrupt, act.engine.start(settings, screen.note))
            outputs = Outputs(lambda audit, signal: screen.ended(result, audit, signal))
            result = ActResult(act, settings, await engine_of(settings), outputs)
            screen.begin_act(result, f"Act {acts.index(act) + 1} of {len(acts)}", self._demo.notes)
            started_s = time.monotonic()
            # What an earlier act played is on the bus already.
            history = [one for one in act.plan.history if one.ts_close_ms > pipeline.newest_ms.get(one.symbol, 0)]
            text = f"Setting up: loading {len(history)} bars of history, which trigger nothing"
            screen.begin("setting up", text, len(history))
            await run_unless_interrupted(self._interrupt, pipeline.load(history, screen.progress))
            screen.note("the worker rebuilds its books from the log and sends the prefixes ahead to the engine")
            await run_unless_interrupted(self._interrupt, pipeline.start_workers(settings, outputs))
            result.warm = pipeline.workers[0].prewarmer.count
            result.setup_s = time.monotonic() - started_s
            screen.note(f"set up in {result.setup_s:.1f} s")
            for plan in act.plan.phases:
                if not self._stopped():
                    await self._play_phase(plan, result)
            screen.begin("draining", "Draining: the last triggers are decided and committed", 0)
            if self._stopped():
                screen.note("interrupted: no more bars are published; open triggers are decided and reported")
            result.inputs = await pipeline.decided(_DRAIN_S)
            await pipeline.stop_workers()
            result.accounts = pipeline.accounts
            result.duration_s = time.monotonic() - started_s - result.setup_s
        return result

    async def _play_phase(self, plan: PhasePlan, result: ActResult) -> None:
        """Publish each bar when it is due or, in step, when the decisions on those before have ended; in an outage, restart the engine."""
        now_s, step_s, background = asyncio.get_running_loop().time, plan.duration_s / plan.steps, []
        if plan.phase is Phase.OUTAGE:
            await wait_until(lambda: self._pipeline.settled, _SETTLE_S)
        self._screen.begin(plan.phase.value, plan.title(result.settings.fusion.permits), len(plan.bars))
        if plan.phase is Phase.OUTAGE and result.act.engine is not None:
            background.append(self._pipeline.spawn(self._outage(result.act.engine, result), "outage"))
        until_s = now_s() + plan.duration_s
        if plan.in_step:
            for _, bars in groupby(plan.bars, key=lambda bar: bar[1].ts_close_ms):
                if not self._stopped() and now_s() <= until_s:
                    await self._publish(list(bars), result.settings, STEP_S)
                    await self._pipeline.decided(unless=self._stopped)
        else:
            await self._publish(plan.bars, result.settings, step_s)
            await wait_until(self._stopped, until_s - now_s())
        await asyncio.gather(*background)
        if plan.phase is Phase.PACED:
            result.warm_paced = dataclasses.replace(result.warm)

    async def _publish(self, bars: Sequence[tuple[float, Candle]], settings: Settings, step_s: float) -> None:
        """Publish bars, and their charts' features a while later; `step_s` is the time from bar to bar."""
        late_s = (settings.fusion.vision_wait_ms + LATE_MS) / 1000 if self._demo.options.vision == "late" else 0.0
        messages: list[tuple[float, Candle | VisionFeatures]] = list(bars)
        for due_s, candle in bars:
            if (chart := self._charts.get((candle.symbol, candle.ts_close_ms))) is not None:
                messages.append((due_s + step_s * self._random.uniform(*CHART_DELAY) + late_s, chart))
        now_s = asyncio.get_running_loop().time
        started_s = now_s()
        for due_s, message in sorted(messages, key=itemgetter(0)):
            await wait_until(self._stopped, started_s + due_s - now_s())
            if self._stopped():
                return
            if isinstance(message, Candle):
                if message.symbol not in self._pipeline.newest_ms:
                    self._screen.listed(message, settings.fusion.min_bars)
                self._screen.bar_played(message)
            await self._pipeline.publish([message])

    async def _outage(self, engine: OwnEngine, result: ActResult) -> None:
        """Kill the engine and restart it, and store for how many seconds it did not answer."""
        await asyncio.sleep(_CALLS_IN_FLIGHT_S)
        self._screen.note("the engine's process is killed; bars keep coming")
        killed_s = time.monotonic()
        await engine.kill()
        await asyncio.sleep(OUTAGE_S)
        await engine.start(result.act.settings, self._screen.note)
        result.outage_s = time.monotonic() - killed_s
        self._screen.note(f"the engine answers again after {result.outage_s:.1f} s, with an empty cache")
