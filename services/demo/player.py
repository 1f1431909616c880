"""Publishes a phase's bars when they are due, and the recorded vision features of each bar a moment later."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from itertools import groupby
from random import Random
from typing import Final

from schemas import Candle, Topic, VisionFeatures
from services.demo.pipeline import Pipeline, wait_until
from services.demo.plan import PhasePlan
from services.demo.terminal import Screen

CHART_DELAY: Final = (0.03, 0.09)
"""Shortest and longest delay of a chart's features after its bar, as a share of the time from bar to bar.

A share, because the demo compresses time: a burst at ten times the pace stands for the same market and the same detector.
"""

STEP_S: Final = 1.0
"""The time from bar to bar that is assumed where bars wait for decisions."""


class Player:
    """Plays phases until `stopped` is set; `finish` waits for the last vision features."""

    def __init__(
        self,
        pipeline: Pipeline,
        screen: Screen,
        charts: Mapping[tuple[str, int], VisionFeatures],
        stopped: asyncio.Event,
        *,
        late_ms: int,
        seed: int,
    ) -> None:
        """`charts` are by symbol and window end, empty for none; each is delayed by `late_ms` on top of its usual delay."""
        self._pipeline = pipeline
        self._screen = screen
        self._charts = charts
        self._stopped = stopped
        self._late_ms = late_ms
        self._random = Random(seed)  # noqa: S311 - a demo's jitter
        self._last: dict[str, asyncio.Task[None]] = {}

    async def play(self, plan: PhasePlan) -> None:
        """Publish the bars of `plan`: each when it is due or, in step, when the decisions on those before have ended."""
        now_s = asyncio.get_running_loop().time
        until_s = now_s() + plan.duration_s
        step_s = STEP_S if plan.in_step else plan.duration_s / plan.steps
        for _, bars in groupby(plan.bars, key=lambda bar: bar[1].ts_close_ms):
            triggers = self._pipeline.worker.accounts.triggers
            for due_s, candle in bars:
                if await self._stopped_within(until_s - plan.duration_s + due_s - now_s()):
                    return
                await self._publish(candle, step_s)
                triggers += 1
            if plan.in_step and (not await self._decided(triggers) or now_s() > until_s):
                return
        if not plan.in_step:
            await self._stopped_within(until_s - now_s())

    async def finish(self) -> None:
        """Return once every chart is published."""
        if self._last:
            await asyncio.wait(self._last.values())

    async def _decided(self, triggers: int) -> bool:
        """Return True once `triggers` triggers have their outcomes, False when stopped."""
        worker = self._pipeline.worker
        await wait_until(lambda: self._stopped.is_set() or (worker.accounts.triggers >= triggers and self._pipeline.settled()))
        return not self._stopped.is_set()

    async def _publish(self, candle: Candle, step_s: float) -> None:
        """Publish a bar, and its chart's features later; `step_s` is the time from bar to bar."""
        await self._pipeline.publish_candles([candle])
        self._screen.bar_played(candle)
        if (chart := self._charts.get((candle.symbol, candle.ts_close_ms))) is not None:
            due_s = asyncio.get_running_loop().time() + step_s * self._random.uniform(*CHART_DELAY) + self._late_ms / 1000
            # After the symbol's previous chart: one detector publishes in order, however late this loop runs.
            before = self._last.get(chart.symbol)
            self._last[chart.symbol] = self._pipeline.publish_later(due_s, Topic.VISION_FEATURES, chart.symbol, chart, before)

    async def _stopped_within(self, seconds: float) -> bool:
        if seconds > 0:
            await wait_until(self._stopped.is_set, seconds)
        return self._stopped.is_set()
