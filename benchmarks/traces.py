"""What traces cost: processor time of the market service and the worker without them, with every trace sampled out, and with all recorded.

Each turn runs the three by turns in one process, on the in-process bus: the market service over candles, a worker that folds what came of
them, and a worker that decides bar by bar with the rules engine. Spans go over HTTP to a receiver in a process of its own. The figures are
the process' own processor time, the exporting thread's included, so that other load on the machine says little.
"""

from __future__ import annotations

import asyncio
import secrets
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from benchmarks.feed import MARKET, MINUTE_MS, MODE, START_MS, Walk, publish_instruments, symbols
from benchmarks.harness import Measured, run_alone, say
from benchmarks.local import module
from schemas import Candle, Topic, topic_name
from services.core.bus import Headers, TopicPartition
from services.core.bus.memory import MemoryBus
from services.core.clock import SystemClock
from services.core.fusion_settings import FusionSettings
from services.core.health import Health
from services.core.settings import BusSettings, EngineSettings, MarketSettings, RedisSettings, Settings, TracesSettings
from services.core.topic_admin import ensure_topics
from services.fusion.service import make_worker
from services.fusion.worker import FusionWorker
from services.market.service import MarketService

SYMBOLS: Final = 50
"""Decided on at once, so that what the loop does while it waits is shared."""
HISTORY: Final = 40
"""Bars of a symbol before the first that is decided on."""
_LOOK_S: Final = 0.001
_SHARES: Final = {"off": None, "sampled out": 0.0, "recorded": 1.0}


async def measure(quick: bool) -> Measured:  # noqa: FBT001 - the harness calls it
    """Measure all three by turns."""
    candles, bars, rounds = (2_000, 4, 2) if quick else (12_000, 12, 7)
    found: dict[str, dict[str, list[float]]] = {mode: {} for mode in _SHARES}
    async with module("benchmarks.listener") as url:
        for turn in range(rounds + 1):
            for mode in _SHARES if turn % 2 else reversed(_SHARES):
                figures = await _turn(mode, url, candles, bars)
                for name, value in figures.items() if turn else ():  # the first round warms caches up
                    found[mode].setdefault(name, []).append(value)
            if turn:
                say(f"round {turn}: " + ", ".join(f"{mode} {found[mode]['µs a decision'][-1]:.0f} µs a decision" for mode in _SHARES))
    rows: list[dict[str, Any]] = [
        {"traces": mode, **{name: round(statistics.median(values), 1) for name, values in found[mode].items()}} for mode in _SHARES
    ]
    return Measured(
        rows=rows, setting={"candles": candles, "decisions": SYMBOLS * bars, "rounds": rounds, "spans": "1 a candle, 6 a decision"}
    )


async def _turn(mode: str, url: str, candles: int, bars: int) -> dict[str, float]:
    share = _SHARES[mode]
    traces = TracesSettings() if share is None else TracesSettings(enabled=True, endpoint=f"{url}/v1/traces", sample_ratio=share)
    bus = MemoryBus(SystemClock())
    await ensure_topics(await bus.admin(), MODE, partitions=1)
    await publish_instruments(bus, symbols(SYMBOLS))
    return {
        "µs a candle, market": await _market(bus, _settings(traces), candles),
        "µs a record, folding": await _folding(bus, _settings(traces, start_from="earliest", trigger_on_closed_bar=False)),
        "µs a decision": await _deciding(_settings(traces, permits=SYMBOLS), share, bars),
    }


def _settings(traces: TracesSettings, **fusion: Any) -> Settings:
    return Settings(
        run_mode=MODE,
        bus=BusSettings(url="memory://"),
        redis=RedisSettings(url="none://"),
        engine=EngineSettings(kind="rules"),
        market=MarketSettings(aggregate={}),
        fusion=FusionSettings.model_validate(
            {
                "intervals": ["1m"],
                "window_bars": 128,
                "epoch_slots": 64,
                "vision_wait_ms": 0,
                "max_staleness_ms": 60_000,
                "entry_validity_ms": {"1m": 60_000},
                "rate_limit_per_min": 1_000_000,
                "flip_flop_limit": 0,
                **fusion,
            }
        ),
        traces=traces,
    )


async def _market(bus: MemoryBus, settings: Settings, candles: int) -> float:
    producer = await bus.producer(client_id="benchmark")
    names = symbols(SYMBOLS)
    for number in range(candles):
        candle = _candle(names[number % SYMBOLS], number // SYMBOLS)
        await producer.send(topic_name(Topic.CANDLES, MODE), key=candle.symbol.encode(), value=candle.encode())
    service = MarketService(bus, settings, SystemClock(), Health())
    return await _busy_us(service, lambda: service.counts.records, candles)


async def _folding(bus: MemoryBus, settings: Settings) -> float:
    worker = await make_worker(bus, settings, SystemClock(), Health())
    reader = await bus.reader(client_id="benchmark")
    total = sum((await reader.end_offsets([TopicPartition(MARKET, 0)])).values())
    return await _busy_us(worker, lambda: sum(worker.accounts.records.values()), total)


async def _busy_us(service: MarketService | FusionWorker, done: Callable[[], int], total: int) -> float:
    """Return the processor's µs a record, from the first batch on."""
    running = asyncio.create_task(service.run())
    first, busy_s = 0, 0.0
    while (count := done()) < total and not running.done():
        if count and not first:
            first, busy_s = count, time.process_time()
        await asyncio.sleep(_LOOK_S)
    took_s = time.process_time() - busy_s
    service.stop()
    await running
    assert done() == total
    return 1e6 * took_s / (total - first)


async def _deciding(settings: Settings, share: float | None, bars: int) -> float:
    """Return the processor's µs from a bar's record to its decision's audit record, all symbols at once."""
    bus = MemoryBus(SystemClock())
    await ensure_topics(await bus.admin(), MODE, partitions=1)
    names = symbols(SYMBOLS)
    await publish_instruments(bus, names)
    producer = await bus.producer(client_id="benchmark")
    walks = [Walk(name, number) for number, name in enumerate(names)]

    async def send(slot: int) -> None:
        for walk in walks:
            headers = () if share is None or slot < HISTORY else _context(sampled=share > 0)
            await producer.send(MARKET, key=walk.symbol.encode(), value=walk.bar(START_MS + slot * MINUTE_MS), headers=headers)

    for slot in range(HISTORY):
        await send(slot)
    health = Health()
    worker = await make_worker(bus, settings, SystemClock(), health)
    running = asyncio.create_task(worker.run())
    while not (running.done() or (health.ready and worker.caught_up)):
        await asyncio.sleep(_LOOK_S)
    busy_s = 0.0
    for bar in range(bars + 1):
        before_s = time.process_time()
        await send(HISTORY + bar)
        while sum(worker.accounts.outcomes.values()) < (bar + 1) * SYMBOLS and not running.done():
            await asyncio.sleep(_LOOK_S)
        if bar:  # the first one renders and tokenizes whole prompts
            busy_s += time.process_time() - before_s
    worker.stop()
    await running
    assert worker.accounts.outcomes == {"published": (bars + 1) * SYMBOLS}, worker.accounts.summary()
    return 1e6 * busy_s / (bars * SYMBOLS)


def _context(*, sampled: bool) -> Headers:
    return [("traceparent", f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-{int(sampled):02d}".encode())]


def _candle(symbol: str, number: int) -> Candle:
    close = 100.0 + number % 7
    return Candle(
        schema_version=1,
        run_mode=MODE,
        symbol=symbol,
        interval="1m",
        ts_open_ms=START_MS + number * MINUTE_MS,
        ts_close_ms=START_MS + (number + 1) * MINUTE_MS,
        open=close,
        high=close + 1,
        low=close - 1,
        close=close,
        volume=5.0,
        closed=True,
        revision=0,
    )


if __name__ == "__main__":
    sys.exit(run_alone("traces", __doc__, measure))
