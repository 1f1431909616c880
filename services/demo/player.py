"""Publishes a phase's bars when they are due, and the recorded vision features of each bar a moment later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from itertools import groupby
from random import Random
from typing import Final

from schemas import Candle, Topic, VisionFeatures
from services.demo.pipeline import Pipeline
from services.demo.plan import PhasePlan

CHART_DELAY: Final = (0.03, 0.09)
"""Shortest and longest delay of a chart's features after its bar, as a share of the time from bar to bar.

A share, because the demo compresses time: a burst at ten times the pace stands for the same market and the same detector.
"""

STEP_S: Final = 1.0
"""The time from bar to bar that is assumed where bars wait for decisions."""


class Player:
    """Plays phases; `finish` waits for the last vision features."""

    def __init__(self, pipeline: Pipeline, charts: Mapping[tuple[str, int], VisionFeatures], *, late_ms: int, seed: int) -> None:
        """`charts` are by symbol and window end, empty for none; each is delayed by `late_ms` on top of its usual delay."""
        self._pipeline = pipeline
        self._charts = charts
        self._late_ms = late_ms
        self._random = Random(seed)  # noqa: S311 - a demo's jitter
        self._last: dict[str, asyncio.Task[None]] = {}

    async def play(self, plan: PhasePlan, on_bar: Callable[[Candle], None], stopped: asyncio.Event) -> None:
        """Publish the bars of `plan` until its time is over or `stopped` is set."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        step_s = plan.duration_s / max(1, plan.steps)
        for due_s, candle in plan.bars:
            if await _stopped_within(started + due_s - loop.time(), stopped):
                return
            await self._publish(candle, step_s, on_bar)
        await _stopped_within(started + plan.duration_s - loop.time(), stopped)

    async def play_in_step(self, plan: PhasePlan, on_bar: Callable[[Candle], None], stopped: asyncio.Event) -> None:
        """Publish the bars of each closing time when the decisions on those before have ended; stop as `play` does."""
        loop = asyncio.get_running_loop()
        until = loop.time() + plan.duration_s
        for _, step in groupby(plan.bars, key=lambda bar: bar[1].ts_close_ms):
            if stopped.is_set() or loop.time() > until:
                return
            triggers = self._pipeline.worker.accounts.triggers
            for _, candle in step:
                await self._publish(candle, STEP_S, on_bar)
                triggers += 1
            await self._pipeline.wait_until(partial(self._decided, triggers, stopped))

    def _decided(self, triggers: int, stopped: asyncio.Event) -> bool:
        return stopped.is_set() or (self._pipeline.worker.accounts.triggers >= triggers and self._pipeline.settled())

    async def _publish(self, candle: Candle, step_s: float, on_bar: Callable[[Candle], None]) -> None:
        """Publish a bar, and its chart's features later; `step_s` is the time from bar to bar."""
        await self._pipeline.publish_candles([candle])
        on_bar(candle)
        chart = self._charts.get((candle.symbol, candle.ts_close_ms))
        if chart is not None:
            delay_s = step_s * self._random.uniform(*CHART_DELAY) + self._late_ms / 1000
            publishing = self._publish_chart(chart, asyncio.get_running_loop().time() + delay_s, self._last.get(chart.symbol))
            self._last[chart.symbol] = asyncio.create_task(publishing, name=f"charts of {chart.symbol}")

    async def finish(self) -> None:
        """Return once every chart is published; raise BusError."""
        await asyncio.gather(*self._last.values())

    async def _publish_chart(self, chart: VisionFeatures, due_s: float, previous: asyncio.Task[None] | None) -> None:
        """Publish at `due_s`, after the symbol's previous chart: one detector publishes in order, however late this loop runs."""
        await asyncio.sleep(due_s - asyncio.get_running_loop().time())
        if previous is not None:
            await previous
        await self._pipeline.publish(Topic.VISION_FEATURES, [(chart.symbol, chart)])


async def _stopped_within(seconds: float, stopped: asyncio.Event) -> bool:
    """Wait until `stopped` is set, for `seconds` at most; return whether it is."""
    if seconds > 0 and not stopped.is_set():
        try:
            async with asyncio.timeout(seconds):
                await stopped.wait()
        except TimeoutError:
            return False
    return stopped.is_set()
