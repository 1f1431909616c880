"""The vision service: it consumes candles and publishes the vision features of the chart that each closed bar completes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import structlog

from schemas import Topic
from services.core.bus import Bus, Position, Record
from services.core.clock import Clock
from services.core.decode import accepted_modes
from services.core.folding.candles import CandleRules
from services.core.folding.disposition import Counts
from services.core.folding.service import FoldingService, Role
from services.core.health import Health
from services.core.metrics import VISION_WINDOWS
from services.core.settings import Settings, SettingsError
from services.vision.book import Refusal, Window, WindowRules
from services.vision.books import Books, CandleResult, WindowsDue
from services.vision.features import compute_features
from services.vision.forecaster import Forecaster

_log = structlog.get_logger()


@dataclass(slots=True)
class VisionCounts(Counts):
    """How many records were read and how many windows were due, published or refused."""

    due: int = 0
    """Counted with the record, when the window is still to be computed."""
    published: int = 0
    refused: Counter[Refusal] = field(default_factory=Counter)


class VisionService(FoldingService[CandleResult]):
    """One member of the vision group."""

    def __init__(self, bus: Bus, settings: Settings, clock: Clock, model: Forecaster, health: Health) -> None:
        """Raise SettingsError when the model was trained on images of another size than the settings name."""
        vision = settings.vision
        if model.spec.bars != vision.window_bars:
            raise SettingsError(
                f"vision.window_bars is {vision.window_bars}, and the weights are for images of {model.spec.bars} bars; "
                "set one to the other"
            )
        super().__init__(
            bus, settings, clock, health, Role("aquiline-vision", vision.group, Topic.CANDLES, Topic.VISION_FEATURES, "vision")
        )
        self.counts: VisionCounts = VisionCounts()
        self._model = model
        self._rules = CandleRules(accepted_modes(settings.run_mode), settings.bus.max_record_bytes, settings.fusion.max_skew_ms)
        self._due = WindowsDue(frozenset(vision.intervals), vision.stride, WindowRules(model.spec, vision.max_gap_bars, vision.max_jump))
        # One thread: a forecaster is called from one thread at a time, and the event loop must not wait for it.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="vision")

    def begin_books(self) -> Books:
        """Return the empty books of a partition."""
        return Books(self._instruments, self._rules, self._due)

    async def run(self) -> None:
        """Run until `stop`; raise BusError when the topics are unusable or the broker rejects a record."""
        with self._thread:
            await super().run()

    def count(self, result: CandleResult) -> None:
        """Count a record and, if its window is refused, the reason."""
        super().count(result)
        due = result.due
        if due is None:
            return
        if isinstance(due.window, Window):
            self.counts.due += 1
            return
        self.counts.refused[due.window] += 1
        VISION_WINDOWS.labels(due.window.value).inc()
        if due.window is not Refusal.TOO_FEW_BARS:
            _log.warning("window_refused", reason=due.window.value, symbol=due.symbol, interval=due.interval)

    async def publish(self, taken: AsyncIterator[tuple[Record, CandleResult]]) -> list[Awaitable[Position]]:
        """Fold the whole batch, then compute its windows in forward passes of at most `vision.batch` windows."""
        windows = [(record, result.due.window) async for record, result in taken if result.due and isinstance(result.due.window, Window)]
        acks: list[Awaitable[Position]] = []
        for first in range(0, len(windows), self._settings.vision.batch):
            acks += await self._publish_windows(windows[first : first + self._settings.vision.batch])
        return acks

    async def _publish_windows(self, windows: Sequence[tuple[Record, Window]]) -> list[Awaitable[Position]]:
        loop = asyncio.get_running_loop()
        computed = await loop.run_in_executor(self._thread, compute_features, [window for _, window in windows], self._model)
        acks = [await self.send(record, features, self.made(record)) for (record, _), features in zip(windows, computed, strict=True)]
        self.counts.published += len(acks)
        VISION_WINDOWS.labels("published").inc(len(acks))
        return acks
