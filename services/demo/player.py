"""Publishes a phase's bars when they are due, and the recorded vision features of each bar a moment later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from random import Random
from typing import Final

from schemas import Candle, Topic, VisionFeatures
from services.demo.pipeline import Pipeline
from services.demo.plan import PhasePlan

CHART_DELAY: Final = (0.03, 0.09)
"""Shortest and longest delay of a chart's features after its bar, as a share of the time from bar to bar.

A share, because the demo compresses time: a burst at ten times the pace stands for the same market and the same detector.
"""


class Player:
    """Plays phases. `bars` counts published bars; `finish` waits for the last vision features."""

    def __init__(self, pipeline: Pipeline, charts: Mapping[tuple[str, int], VisionFeatures], *, late_ms: int, seed: int) -> None:
        """`charts` are by symbol and window end, empty for none; each is delayed by `late_ms` on top of its usual delay."""
        self._pipeline = pipeline
        self._charts = charts
        self._late_ms = late_ms
        self._random = Random(seed)  # noqa: S311 - a demo's jitter
        self._last: dict[str, asyncio.Task[None]] = {}
        self.bars = 0

    async def play(self, plan: PhasePlan, on_bar: Callable[[Candle], None], stopped: asyncio.Event) -> None:
        """Publish the bars of `plan` until its time is over or `stopped` is set."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        step_ms = 1000 * plan.duration_s / max(1, plan.steps)
        for due_s, candle in plan.bars:
            if await _stopped_within(started + due_s - loop.time(), stopped):
                return
            await self._pipeline.publish(Topic.CANDLES, [(candle.symbol, candle)])
            self.bars += 1
            on_bar(candle)
            chart = self._charts.get((candle.symbol, candle.ts_close_ms))
            if chart is not None:
                delay_ms = step_ms * self._random.uniform(*CHART_DELAY) + self._late_ms
                publishing = self._publish_chart(chart, loop.time() + delay_ms / 1000, self._last.get(chart.symbol))
                self._last[chart.symbol] = asyncio.create_task(publishing, name=f"charts of {chart.symbol}")
        await _stopped_within(started + plan.duration_s - loop.time(), stopped)

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
