"""Time from a bar's record to the last byte of its request at the engine, with prompts of 32K tokens.

The worker is the real one, on the in-process bus, with SGLang's client over loopback; the engine is a process that notes when a whole
body was there and answers at once. Measured from the append to the bus, so a little more than from the fold; nothing waits for vision
features, and each bar finds the worker idle, as prompts queue for the engine and not for the worker. Two symbols take turns.

- `memory`: pages and prefixes are in the process, as in steady work; new epochs included, their pages having been sent ahead.
- `redis`: the process has room for no more than one prefix, so that each prompt's pages come from a real Redis.
- `anew`: the same without Redis, so that each prompt is tokenized whole.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, Final

import aiohttp

from benchmarks.feed import MARKET, MINUTE_MS, MODE, START_MS, Walk, publish_instruments, symbols
from benchmarks.harness import Measured, Target, percentile, run_alone, say
from benchmarks.local import module
from benchmarks.prompts import window_for
from deploy.local import LocalRedis
from services.core.bus.memory import MemoryBus
from services.core.clock import SystemClock
from services.core.fusion_settings import FusionSettings
from services.core.health import Health
from services.core.settings import EngineSettings, RedisSettings, Settings
from services.core.topic_admin import ensure_topics
from services.fusion.service import load_tokenizer, make_worker

TOKENS: Final = 32_768
EPOCH_SLOTS: Final = 64
MEDIAN_MS: Final = 3.0
P99_MS: Final = 10.0
_NO_ROOM: Final = 1
"""Bytes for the process-local caches: they then keep the newest entry alone, and the other symbol's turn drives it out."""
_PAUSE_S: Final = 0.01
"""Between decisions, for what a decision leaves to the background: audit records, writes to Redis."""


async def measure(quick: bool) -> Measured:  # noqa: FBT001 - the harness calls it
    """Measure all three."""
    decisions = 60 if quick else 600
    names = symbols(2)
    window = window_for(TOKENS, EPOCH_SLOTS / 2, load_tokenizer(EngineSettings()), names[0])
    measured = Measured(rows=[], setting={"decisions": decisions, "window_bars": window, "epoch_slots": EPOCH_SLOTS, "symbols": len(names)})
    with tempfile.TemporaryDirectory(prefix="aquiline-benchmark-") as folder, LocalRedis(Path(folder)) as redis:
        for pages, url, room in (("memory", redis.url, None), ("redis", redis.url, _NO_ROOM), ("anew", "none://", _NO_ROOM)):
            caches = RedisSettings(url=url, **({} if room is None else {"local_bytes": room}))
            row = {"pages from": pages, **await run(names, window, decisions, caches)}
            measured.rows.append(row)
            say(str(row))
            if pages != "anew":
                for what, limit in (("median", MEDIAN_MS), ("99 %", P99_MS)):
                    measured.targets.append(
                        Target(f"{what} with pages from {pages}", limit, at_least=False, got=row[f"{what} ms"], unit="ms")
                    )
    return measured


async def run(names: list[str], window: int, decisions: int, caches: RedisSettings) -> dict[str, Any]:
    """Have a worker decide `decisions` times and return the figures."""
    clock = SystemClock()
    async with module("benchmarks.listener") as url:
        settings = Settings(
            run_mode=MODE,
            redis=caches,
            engine=EngineSettings(urls=[url]),
            fusion=FusionSettings(
                intervals=["1m"], window_bars=window, epoch_slots=EPOCH_SLOTS, vision_wait_ms=0, rate_limit_per_min=1_000_000
            ),
        )
        bus = MemoryBus(clock)
        await ensure_topics(await bus.admin(), MODE, partitions=1)
        await publish_instruments(bus, names)
        producer = await bus.producer(client_id="benchmark")
        walks = [Walk(name, number) for number, name in enumerate(names)]

        async def send(walk: Walk, slot: int) -> float:
            value = walk.bar(START_MS + slot * MINUTE_MS)
            started = time.perf_counter()
            await _done(await producer.send(MARKET, key=walk.symbol.encode(), value=value))
            return started

        history = window + 2 * EPOCH_SLOTS
        for slot in range(history):
            for walk in walks:
                await send(walk, slot)
        health = Health()
        worker = await make_worker(bus, settings, clock, health)
        running = asyncio.create_task(worker.run())
        while not (running.done() or (health.ready and worker.caught_up)):
            await asyncio.sleep(0.01)
        if running.done():
            await running  # says why it ended
        sent: list[float] = []
        # Two decisions of each symbol come first: connections are made, and both symbols' caches have seen their state.
        for number in range(-4, decisions):
            await worker.prewarmer.idle()
            await asyncio.sleep(_PAUSE_S)
            sent.append(await send(walks[number % 2], history + (number + 4) // 2))
            while sum(worker.accounts.outcomes.values()) < len(sent):
                await asyncio.sleep(0.001)
        assert worker.accounts.outcomes == {"published": len(sent)}, worker.accounts.summary()
        async with aiohttp.ClientSession() as session, session.get(f"{url}/arrivals") as answer:
            arrivals: list[tuple[float, int, int]] = await answer.json()
        worker.stop()
        await running
    took_ms = [1000 * (arrival[0] - started) for arrival, started in zip(arrivals[4:], sent[4:], strict=True)]
    return {
        "prompt tokens": round(statistics.median(arrival[1] for arrival in arrivals)),
        "body KB": round(statistics.median(arrival[2] for arrival in arrivals) / 1000),
        "median ms": round(statistics.median(took_ms), 2),
        "90 % ms": round(percentile(took_ms, 0.90), 2),
        "99 % ms": round(percentile(took_ms, 0.99), 2),
        "longest ms": round(max(took_ms), 2),
    }


async def _done(acknowledgement: Awaitable[object]) -> None:
    await acknowledgement


if __name__ == "__main__":
    sys.exit(run_alone("request", __doc__, measure))
