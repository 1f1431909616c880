"""The shipped stocks through market service and workers on one loop, for benchmarks that time a worker beside an engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from schemas import Candle, RunMode
from services.core.bus.memory import MemoryBus
from services.core.clock import SystemClock
from services.core.settings import Settings
from services.feeds.paced_publishing import in_event_time
from services.feeds.samples import load_instruments, load_splits
from services.inference.engine import Engine
from services.pipeline.outputs import Outputs
from services.pipeline.pipeline import Pipeline, running_pipeline

FIRST_PLAYED_MS: Final = 1_325_500_000_000
"""2 January 2012: from then on there are recorded vision features, and no splits."""


@asynccontextmanager
async def stock_pipeline(
    settings: Settings, engines: Sequence[Engine], history: Iterable[Candle], outputs: Outputs, *, partitions: int
) -> AsyncIterator[Pipeline]:
    """Yield the in-process bus with a worker beside each of `engines`, ready to decide on what follows `history`."""
    clock = SystemClock()
    async with running_pipeline(MemoryBus(clock), settings, clock) as pipeline:
        await pipeline.open_topics(load_instruments(RunMode.DEMO), load_splits(RunMode.DEMO), partitions)
        await pipeline.start_features()
        await pipeline.load(in_event_time(history))
        await pipeline.start_workers(settings, outputs, engines)
        yield pipeline
