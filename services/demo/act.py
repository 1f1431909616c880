"""Plays one act: starts its engine and its worker, publishes history and bars phase after phase, and waits for every decision."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from dataclasses import dataclass
from itertools import groupby
from random import Random
from typing import Final

from schemas import Candle, Topic, VisionFeatures
from services.core.ctrl_c import Interrupt, run_unless_interrupted
from services.core.settings import Settings
from services.demo.options import Vision
from services.demo.pipeline import Pipeline, engine_of, wait_until
from services.demo.plan import OUTAGE_S, Phase, PhasePlan, day_of
from services.demo.results import Results
from services.demo.screen import Screen
from services.demo.sentences import opening, title
from services.demo.setup import Act, Demo
from services.fusion.deliver.accounts import Accounts
from services.fusion.prompt.prewarm import WarmCount
from services.inference.engine import EngineInfo
from services.inference.own_engine import OwnEngine
from services.vision.recorded import load_recorded

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
_CHUNK_BARS: Final = 250


@dataclass(frozen=True, slots=True)
class ActResult:
    """The results of an act; durations in seconds."""

    act: Act
    settings: Settings
    """The worker's, with the engine's address."""
    engine: EngineInfo
    results: Results
    accounts: Accounts
    inputs: int
    """Records that the input topics gained while the worker ran."""
    warm_paced: WarmCount
    """Tokens sent ahead up to the end of the paced phase, set-up included."""
    warm: WarmCount
    setup_s: float
    duration_s: float
    outage_s: float | None


class ActRun:
    """One act on a running pipeline."""

    def __init__(self, act: Act, demo: Demo, pipeline: Pipeline, screen: Screen, interrupt: Interrupt) -> None:
        """Play nothing yet."""
        self._act = act
        self._demo = demo
        self._pipeline = pipeline
        self._screen = screen
        self._interrupt = interrupt
        self._stopped = interrupt.requested.is_set
        vision = demo.options.vision
        self._charts = load_recorded() if vision in {Vision.RECORDED, Vision.LATE} else {}
        self._late_s = (act.settings.fusion.vision_wait_ms + LATE_MS) / 1000 if vision is Vision.LATE else 0.0
        self._random = Random(demo.options.seed)  # noqa: S311 - a demo's jitter
        self._newest_charts: dict[str, asyncio.Task[None]] = {}

    async def play(self) -> ActResult:
        """Play the act; raise ServerStartError, and RunInterruptedError when interrupted before the first bar."""
        settings, engine = self._act.settings, self._act.engine
        try:
            if engine is not None:
                settings = await run_unless_interrupted(self._interrupt, engine.start(settings, self._screen.note))
            return await self._play(settings)
        finally:
            if engine is not None:
                await engine.kill()

    async def _play(self, settings: Settings) -> ActResult:
        act, acts, pipeline, screen = self._act, self._demo.acts, self._pipeline, self._screen
        engine = await engine_of(settings)
        what, banner = opening(engine, real_model=act.has_model)
        screen.begin_act(f"Act {acts.index(act) + 1} of {len(acts)}: {what}", banner)
        for note in self._demo.notes:
            screen.note(note)
        started_s, opened, ended = time.monotonic(), asyncio.Event(), asyncio.Event()
        results = Results(act.plan, screen.ended)
        await run_unless_interrupted(self._interrupt, self._load_history())
        following = pipeline.spawn(results.follow(pipeline.bus, settings.run_mode, opened, ended), "results")
        await opened.wait()
        inputs_before = await self._inputs()
        screen.note("the worker rebuilds its books from the log and sends the prefixes ahead to the engine")
        await run_unless_interrupted(self._interrupt, pipeline.start_worker(settings))
        worker, setup_s = pipeline.worker, time.monotonic() - started_s
        screen.note(f"set up in {setup_s:.1f} s")
        screen.results, screen.warm = results, worker.prewarmer.count
        warm_paced, outage_s = WarmCount(), None
        for plan in act.plan.phases:
            if self._stopped():
                break
            if plan.phase is Phase.OUTAGE:
                await wait_until(pipeline.settled, _SETTLE_S)
            screen.begin(plan.phase.value, title(plan, settings), len(plan.bars))
            playing = pipeline.spawn(self._publish_bars(plan), plan.phase.value)
            if plan.phase is Phase.OUTAGE and act.engine is not None:
                outage_s = await self._outage(act.engine)
            await playing
            if plan.phase is Phase.PACED:
                warm_paced = dataclasses.replace(worker.prewarmer.count)
        inputs = await self._drain(inputs_before)
        await pipeline.stop(worker)
        ended.set()
        await following
        return ActResult(
            act=act,
            settings=settings,
            engine=engine,
            results=results,
            inputs=inputs,
            accounts=worker.accounts,
            warm_paced=warm_paced,
            warm=worker.prewarmer.count,
            setup_s=setup_s,
            duration_s=time.monotonic() - started_s - setup_s,
            outage_s=outage_s,
        )

    async def _load_history(self) -> None:
        pipeline, screen = self._pipeline, self._screen
        # What an earlier act played is on the bus already.
        history = [one for one in self._act.plan.history if (one.symbol, one.ts_close_ms) not in pipeline.published]
        screen.begin("setting up", f"Setting up: loading {len(history)} bars of history, which trigger nothing", len(history))
        for start in range(0, len(history), _CHUNK_BARS):
            await pipeline.publish(Topic.CANDLES, history[start : start + _CHUNK_BARS])
            await pipeline.all_processed()
            screen.done = min(len(history), start + _CHUNK_BARS)

    async def _publish_bars(self, plan: PhasePlan) -> None:
        """Publish each bar when it is due or, in step, when the decisions on those before have ended."""
        pipeline, now_s = self._pipeline, asyncio.get_running_loop().time
        listed = {symbol for symbol, _ in pipeline.published}
        started_s, step_s = now_s(), STEP_S if plan.in_step else plan.duration_s / plan.steps
        for _, bars in groupby(plan.bars, key=lambda bar: bar[1].ts_close_ms):
            triggers = pipeline.worker.accounts.triggers
            for due_s, candle in bars:
                await wait_until(self._stopped, started_s + due_s - now_s())
                if self._stopped():
                    return
                if candle.symbol not in listed:
                    listed.add(candle.symbol)
                    self._screen.note(
                        f"{candle.symbol} is listed on {day_of(candle.ts_close_ms)}: its triggers end `blocked` (min_bars) until it has "
                        f"{self._act.settings.fusion.min_bars} bars"
                    )
                await self._publish_bar(candle, step_s)
                triggers += 1
            if plan.in_step:
                await self._decided(triggers)
                if now_s() > started_s + plan.duration_s:
                    return
        if not plan.in_step:
            await wait_until(self._stopped, started_s + plan.duration_s - now_s())

    async def _decided(self, triggers: int) -> None:
        """Return once `triggers` triggers have their outcomes, or when interrupted."""
        accounts = self._pipeline.worker.accounts
        await wait_until(lambda: self._stopped() or (accounts.triggers >= triggers and self._pipeline.settled()))

    async def _publish_bar(self, candle: Candle, step_s: float) -> None:
        """Publish a bar, and its chart's features later; `step_s` is the time from bar to bar."""
        await self._pipeline.publish(Topic.CANDLES, [candle])
        self._screen.bar_played(candle)
        if (chart := self._charts.get((candle.symbol, candle.ts_close_ms))) is not None:
            due_s = asyncio.get_running_loop().time() + step_s * self._random.uniform(*CHART_DELAY) + self._late_s
            later = self._publish_chart(chart, due_s, self._newest_charts.get(chart.symbol))
            self._newest_charts[chart.symbol] = self._pipeline.spawn(later, f"chart of {chart.symbol}")

    async def _publish_chart(self, chart: VisionFeatures, due_s: float, previous: asyncio.Task[None] | None) -> None:
        await asyncio.sleep(due_s - asyncio.get_running_loop().time())
        if previous is not None:
            # One detector publishes in order, however late this loop runs.
            await asyncio.wait([previous])
        await self._pipeline.publish(Topic.VISION_FEATURES, [chart])

    async def _outage(self, engine: OwnEngine) -> float:
        """Kill the engine, restart it, and return for how many seconds it did not answer."""
        await asyncio.sleep(_CALLS_IN_FLIGHT_S)
        self._screen.note("the engine's process is killed; bars keep coming")
        killed_s = time.monotonic()
        await engine.kill()
        await asyncio.sleep(OUTAGE_S)
        await engine.start(self._act.settings, self._screen.note)
        outage_s = time.monotonic() - killed_s
        self._screen.note(f"the engine answers again after {outage_s:.1f} s, with an empty cache")
        return outage_s

    async def _drain(self, inputs_before: int) -> int:
        """Wait until every trigger has its outcome; return how many records the input topics have gained."""
        pipeline, screen = self._pipeline, self._screen
        screen.begin("draining", "Draining: the last triggers are decided and committed", 0)
        if self._stopped():
            screen.note("interrupted: no more bars are published; open triggers are decided and reported")
        if self._newest_charts:
            await asyncio.wait(self._newest_charts.values())
        await pipeline.all_processed(_DRAIN_S)
        inputs = await self._inputs() - inputs_before
        await wait_until(lambda: pipeline.worker.accounts.records.total() >= inputs and pipeline.settled(), _DRAIN_S)
        return inputs

    async def _inputs(self) -> int:
        return await self._pipeline.length(Topic.MARKET_FEATURES, Topic.VISION_FEATURES)
