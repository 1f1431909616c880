"""A worker on the in-process bus that is fed what nobody should send, in rounds, and what is counted while it is.

Every mutation is drawn from a seed and a number, so that a failing one is made again by name.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import resource
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog

from schemas import AuditRecord, RunMode, Topic, topic_name
from services.core.bus import TopicPartition
from services.core.bus.memory import MemoryBus
from services.core.clock import SystemClock
from services.core.health import Health
from services.core.settings import Settings
from services.core.topic_admin import ensure_topics
from services.fusion.service import make_worker
from services.fusion.worker import FusionWorker
from tests.integration.fusion.feed import SYMBOLS, bar, instrument
from tests.integration.fusion.waiting import until
from tests.stored import store

SEED: Final = int(os.environ.get("FUZZ_SEED", "0"))
RECORDS: Final = int(os.environ.get("FUZZ_RECORDS", "4000"))
"""Malformed records of each input topic; `make fuzz` sends 100,000."""
ANSWERS: Final = int(os.environ.get("FUZZ_ANSWERS", "400"))
"""Malformed answers of engines; `make fuzz` gives 20,000."""
ROUND: Final = 2_000
HISTORY: Final = 12
MODE: Final = RunMode.DEMO
_PAGE_BYTES: Final = resource.getpagesize()


def draw(number: int) -> random.Random:
    """Return what the `number`-th mutation is drawn from."""
    return random.Random(f"{SEED}/{number}")  # noqa: S311 - to be repeated, not to be secret


def rss_bytes() -> int:
    """Return the resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES


@dataclass
class Fuzzed:
    """A running worker and what it is fed through."""

    bus: MemoryBus
    worker: FusionWorker
    health: Health
    running: asyncio.Task[None]
    memory: list[int] = field(default_factory=list)
    """Resident bytes after each round."""

    async def send(self, records: Sequence[tuple[Topic, bytes | None, bytes | None]]) -> None:
        """Append records."""
        producer = await self.bus.producer(client_id="fuzz")
        for topic, key, value in records:
            await (await producer.send(topic_name(topic, MODE), key=key, value=value))

    async def until(self, holds: Callable[[], bool], what: str) -> None:
        """Return once `holds` does; raise what the worker ended with when it ends."""

        async def held() -> bool:
            if self.running.done():
                await self.running
            return holds()

        await until(held, what, told=lambda: str(self.worker.accounts.summary()))

    async def settled(self, records: int) -> None:
        """Return once `records` are counted and every trigger has its outcome acknowledged; note the memory, and empty the topics."""
        accounts = self.worker.accounts
        await self.until(lambda: accounts.records.total() >= records, f"{records} records")
        await self.until(lambda: accounts.outcomes.total() == accounts.triggers, "every outcome")
        await self.worker.settle()
        admin = await self.bus.admin()
        await admin.truncate([topic_name(topic, MODE) for topic in Topic])
        self.memory.append(rss_bytes())

    async def audits(self) -> list[AuditRecord]:
        """Return the audit records that are on the topic now."""
        name = topic_name(Topic.SIGNAL_AUDIT, MODE)
        reader = await self.bus.reader(client_id="fuzz")
        partitions = [TopicPartition(name, number) for number in range(2)]
        ends = await reader.end_offsets(partitions)
        await reader.read(await reader.beginning_offsets(partitions))
        found: list[AuditRecord] = []
        while any(reader.position(tp) < end for tp, end in ends.items()):
            found += [AuditRecord.decode(one.value or b"") for one in await reader.poll(timeout_ms=0)]
        return found

    @property
    def growth(self) -> float:
        """Return by which share memory has grown since a fifth of the rounds had passed: until then caches and pools fill up."""
        first = self.memory[len(self.memory) // 5]
        return max(0, self.memory[-1] - first) / first


@asynccontextmanager
async def fuzzed(engine: dict[str, Any], symbols: Sequence[str] = SYMBOLS, **fusion: Any) -> AsyncIterator[Fuzzed]:
    """Yield a ready worker with a history of every symbol; raise what it ended with."""
    # A line for each dead letter would take longer than the rest.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    clock = SystemClock()
    bus = MemoryBus(clock)
    settings = Settings.model_validate(
        {
            "run_mode": MODE,
            "redis": {"url": "none://"},
            "engine": engine,
            "fusion": {
                "intervals": ["1m"],
                "window_bars": 64,
                "epoch_slots": 32,
                "min_bars": 2,
                "vision_wait_ms": 0,
                "prewarm": False,
                "max_dead_letter_ratio": 1.0,
                "max_staleness_ms": 600_000,
                "entry_validity_ms": {"1m": 600_000},
                "flip_flop_limit": 0,
                "max_unfinished": 100_000,
                "pause_at_unfinished": 200_000,
                "rate_limit_per_min": 10_000_000,
                **fusion,
            },
        }
    )
    admin = await bus.admin()
    await ensure_topics(admin, MODE, 2)
    health = Health()
    producer = await bus.producer(client_id="history")
    for symbol in symbols:
        await producer.send(topic_name(Topic.INSTRUMENTS, MODE), key=symbol.encode(), value=instrument(symbol).encode())
    worker = await make_worker(bus, settings, clock, health)
    fuzz = Fuzzed(bus, worker, health, asyncio.create_task(worker.run()))
    await fuzz.until(lambda: health.ready and worker.caught_up, "the worker to be ready")
    await fuzz.send([(Topic.MARKET_FEATURES, symbol.encode(), bar(symbol, n).encode()) for n in range(HISTORY) for symbol in symbols])
    await fuzz.settled(HISTORY * len(symbols))
    try:
        yield fuzz
    finally:
        worker.stop()
        await fuzz.running
        structlog.reset_defaults()


def keep(name: str, figures: dict[str, Any]) -> None:
    """Store what a full run (`make fuzz`) counted, with its seed."""
    store("fuzz", name, {"seed": SEED, **figures})
