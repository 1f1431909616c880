"""The whole vision service on the in-process bus, from candles to acknowledged features, as fast as it goes."""

from __future__ import annotations

import asyncio
import time

import numpy as np

from schemas import Candle, Instrument, RunMode, Topic, topic_name
from services.core import logs
from services.core.bus.memory import MemoryBus
from services.core.clock import SystemClock
from services.core.health import Health
from services.core.settings import LogSettings, Settings, VisionSettings
from services.core.topic_admin import ensure_topics
from services.vision.loading import load_forecaster
from services.vision.service import VisionService

_MODE = RunMode.DEMO
_START_MS = 1_719_792_000_000
_MINUTE_MS = 60_000


async def run_service(symbols: int, bars: int, batch: int) -> tuple[int, float]:
    """Return the charts published and the seconds from start to the last acknowledgement, model loading excluded."""
    logs.configure(LogSettings(level="error"), service="vision")
    settings = Settings(run_mode=_MODE, vision=VisionSettings(batch=batch))
    clock = SystemClock()
    bus = MemoryBus(clock)
    await ensure_topics(await bus.admin(), _MODE, partitions=8)
    names = [f"COIN{number}-USD.CBSE" for number in range(symbols)]
    producer = await bus.producer(client_id="benchmark")
    for name in names:
        await producer.send(topic_name(Topic.INSTRUMENTS, _MODE), key=name.encode(), value=_instrument(name).encode())
    prices = 100 * np.exp(np.cumsum(np.random.default_rng(1).normal(0, 0.001, (bars, symbols)), axis=0))
    for slot in range(bars):
        for name, price in zip(names, prices[slot], strict=True):
            await producer.send(topic_name(Topic.CANDLES, _MODE), key=name.encode(), value=_candle(name, slot, float(price)).encode())
    service = VisionService(bus, settings, clock, load_forecaster(), Health())
    started = time.perf_counter()
    running = asyncio.create_task(service.run())
    while service.counts.records < symbols * bars and not running.done():
        await asyncio.sleep(0.001)
    service.stop()
    await running
    return service.counts.published, time.perf_counter() - started


def _instrument(symbol: str) -> Instrument:
    return Instrument(
        schema_version=1,
        run_mode=_MODE,
        symbol=symbol,
        currency="USD",
        price_increment="0.01",
        calendar="24x7",
        price_adjustment="none",
    )


def _candle(symbol: str, slot: int, price: float) -> Candle:
    open_ms = _START_MS + slot * _MINUTE_MS
    return Candle(
        schema_version=1,
        run_mode=_MODE,
        symbol=symbol,
        interval="1m",
        ts_open_ms=open_ms,
        ts_close_ms=open_ms + _MINUTE_MS,
        open=price,
        high=price * 1.001,
        low=price * 0.999,
        close=price,
        volume=1.0,
        closed=True,
    )
