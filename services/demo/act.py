"""Plays one act: loads the history, starts the worker, plays phase after phase with the outage, and waits for every decision."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from dataclasses import dataclass
from typing import Final

from schemas import Topic
from services.core.ctrl_c import Interrupt, run_unless_interrupted
from services.core.settings import Settings
from services.demo.checks import Check, closing_checks
from services.demo.engines import OwnEngine
from services.demo.options import Vision
from services.demo.pipeline import Pipeline, wait_until
from services.demo.plan import OUTAGE_S, Phase, PhasePlan, day_of
from services.demo.player import Player
from services.demo.results import Follower, Results
from services.demo.sentences import title
from services.demo.setup import Act, Demo
from services.demo.terminal import Screen
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


@dataclass(frozen=True, slots=True)
class ActResult:
    """The results of an act; durations in seconds."""

    act: Act
    settings: Settings
    """The worker's, with the engine's address."""
    engine: EngineInfo
    results: Results
    accounts: Accounts
    checks: list[Check]
    warm_paced: WarmCount
    """Tokens sent ahead up to the end of the paced phase, set-up included."""
    warm: WarmCount
    setup_s: float
    duration_s: float
    outage_s: float | None
    signal_lines: list[bytes]
    audit_lines: list[bytes]


class ActRun:
    """One act on a running pipeline."""

    def __init__(self, act: Act, demo: Demo, pipeline: Pipeline, screen: Screen, interrupt: Interrupt) -> None:
        """Play nothing yet."""
        self._act = act
        self._pipeline = pipeline
        self._screen = screen
        self._interrupt = interrupt
        late_ms = act.settings.fusion.vision_wait_ms + LATE_MS if demo.vision is Vision.LATE else 0
        charts = load_recorded() if demo.vision in {Vision.RECORDED, Vision.LATE} else {}
        self._player = Player(pipeline, screen, charts, interrupt.requested, late_ms=late_ms, seed=demo.seed)
        self._outage_s: float | None = None
        self._warm_paced = WarmCount()

    async def play(self, settings: Settings, engine: EngineInfo) -> ActResult:
        """Play the act with a worker under `settings`; raise RunInterruptedError when interrupted before its first bar."""
        started_s, pipeline, screen = time.monotonic(), self._pipeline, self._screen
        results = Results(self._act.plan)
        follower = Follower(results, screen.ended)
        await run_unless_interrupted(self._interrupt, self._load_history())
        await follower.open(pipeline.bus, settings.run_mode)
        following = pipeline.spawn(follower.follow(), "follower")
        inputs = await self._inputs()
        screen.note("the worker rebuilds its books from the log and sends the prefixes ahead to the engine")
        await run_unless_interrupted(self._interrupt, pipeline.start_worker(settings))
        worker, setup_s = pipeline.worker, time.monotonic() - started_s
        screen.note(f"set up in {setup_s:.1f} s")
        screen.results, screen.warm = results, worker.prewarmer.count
        for plan in self._act.plan.phases:
            if not self._interrupt.requested.is_set():
                await self._play_phase(plan)
        inputs = await self._drain(inputs)
        await pipeline.stop(worker)
        following.cancel()
        await asyncio.wait([following])
        await follower.finish()
        return ActResult(
            act=self._act,
            settings=settings,
            engine=engine,
            results=results,
            accounts=worker.accounts,
            checks=closing_checks(worker.accounts, results, inputs),
            warm_paced=self._warm_paced,
            warm=worker.prewarmer.count,
            setup_s=setup_s,
            duration_s=time.monotonic() - started_s - setup_s,
            outage_s=self._outage_s,
            signal_lines=follower.signal_lines,
            audit_lines=follower.audit_lines,
        )

    async def _inputs(self) -> int:
        return await self._pipeline.length(Topic.MARKET_FEATURES, Topic.VISION_FEATURES)

    async def _load_history(self) -> None:
        pipeline, screen = self._pipeline, self._screen
        # What an earlier act played is on the bus already.
        history = [one for one in self._act.plan.history if (one.symbol, one.ts_close_ms) not in pipeline.published]
        screen.begin("setting up", f"Setting up: loading {len(history)} bars of history, which trigger nothing", len(history))
        for start in range(0, len(history), _CHUNK_BARS):
            await pipeline.publish_candles(history[start : start + _CHUNK_BARS])
            await wait_until(pipeline.all_processed)
            screen.done = min(len(history), start + _CHUNK_BARS)
        await pipeline.features_acknowledged()

    async def _play_phase(self, plan: PhasePlan) -> None:
        pipeline, screen, engine = self._pipeline, self._screen, self._act.engine
        if plan.phase is Phase.OUTAGE:
            await wait_until(pipeline.settled, _SETTLE_S)
        screen.begin(plan.phase.value, title(plan, self._act.settings), len(plan.bars))
        self._announce_listings(plan)
        if plan.phase is Phase.OUTAGE and engine is not None:
            _, self._outage_s = await asyncio.gather(self._player.play(plan), self._outage(engine))
        else:
            await self._player.play(plan)
        if plan.phase is Phase.PACED:
            self._warm_paced = dataclasses.replace(pipeline.worker.prewarmer.count)

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
        if self._interrupt.requested.is_set():
            screen.note("interrupted: no more bars are published; open triggers are decided and reported")
        await self._player.finish()
        await wait_until(pipeline.all_processed, _DRAIN_S)
        await pipeline.features_acknowledged()
        inputs = await self._inputs() - inputs_before
        await wait_until(lambda: pipeline.worker.accounts.records.total() >= inputs and pipeline.settled(), _DRAIN_S)
        return inputs

    def _announce_listings(self, plan: PhasePlan) -> None:
        """Announce symbols whose first bar is in this phase, because their first triggers are blocked."""
        known = {symbol for symbol, _ in self._pipeline.published}
        first_bars = {candle.symbol: candle for _, candle in reversed(plan.bars) if candle.symbol not in known}
        for symbol, candle in first_bars.items():
            self._screen.note(
                f"{symbol} is listed on {day_of(candle.ts_close_ms)}: its triggers end `blocked` (min_bars) until it has "
                f"{self._act.settings.fusion.min_bars} bars"
            )
