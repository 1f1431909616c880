"""Plays an act onto the bus: its bars when they are due, and the recorded vision features of each a moment later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from random import Random
from typing import Final

from schemas import Candle, Topic, VisionFeatures
from services.demo.script import Act
from services.demo.stage import Stage

SEEN: Final = (0.03, 0.09)
"""How long after its bar a chart has been read, at least and at most, as a share of the time from bar to bar.

A share, because the demo compresses time: a burst at ten times the pace stands for the same market and the same detector.
"""


class Player:
    """Publishes acts. `bars` counts what was handed over; close it with `finish`."""

    def __init__(self, stage: Stage, recorded: Mapping[tuple[str, int], VisionFeatures], *, late_ms: int, seed: int) -> None:
        """Play charts from `recorded`, by symbol and window end (empty for none), each `late_ms` later than it could come."""
        self._stage = stage
        self._recorded = recorded
        self._late_ms = late_ms
        self._random = Random(seed)  # noqa: S311 - a demo's jitter
        self._queues: dict[str, asyncio.Queue[tuple[float, VisionFeatures]]] = {}
        self._readers: list[asyncio.Task[None]] = []
        self.bars = 0

    async def play(self, act: Act, on_bar: Callable[[Candle], None], stopped: asyncio.Event) -> None:
        """Publish the act's bars when they are due, until its time is over or `stopped` is set."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        step_ms = 1000 * act.duration_s / max(1, act.steps)
        for due_s, candle in act.bars:
            if await _slept(began + due_s - loop.time(), stopped):
                return
            await self._stage.publish(Topic.CANDLES, [(candle.symbol, candle)])
            self.bars += 1
            on_bar(candle)
            chart = self._recorded.get((candle.symbol, candle.ts_close_ms))
            if chart is not None:
                delay_ms = step_ms * self._random.uniform(*SEEN) + self._late_ms
                self._queue(candle.symbol).put_nowait((loop.time() + delay_ms / 1000, chart))
        await _slept(began + act.duration_s - loop.time(), stopped)

    async def finish(self) -> None:
        """Return once every chart is out."""
        for queue in self._queues.values():
            await queue.join()
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)

    def _queue(self, symbol: str) -> asyncio.Queue[tuple[float, VisionFeatures]]:
        if symbol not in self._queues:
            self._queues[symbol] = asyncio.Queue()
            self._readers.append(asyncio.create_task(self._read(self._queues[symbol]), name=f"charts of {symbol}"))
        return self._queues[symbol]

    async def _read(self, queue: asyncio.Queue[tuple[float, VisionFeatures]]) -> None:
        """Publish one symbol's charts in their order, as one detector does, however late this loop gets its turns."""
        loop = asyncio.get_running_loop()
        while True:
            due_s, chart = await queue.get()
            await asyncio.sleep(due_s - loop.time())
            await self._stage.publish(Topic.VISION_FEATURES, [(chart.symbol, chart)])
            queue.task_done()


async def _slept(seconds: float, stopped: asyncio.Event) -> bool:
    """Sleep, unless `stopped` is set before; return whether it is."""
    if seconds > 0 and not stopped.is_set():
        try:
            async with asyncio.timeout(seconds):
                await stopped.wait()
        except TimeoutError:
            return False
    return stopped.is_set()
