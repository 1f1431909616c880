"""Records vision features by running the service over bars on an in-process bus, for the demo to play."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from schemas import Candle, Instrument, InstrumentEvent, RunMode, Topic, VisionFeatures, topic_name
from services.core.bus import TopicPartition
from services.core.bus.memory import MemoryBus
from services.core.clock import SystemClock
from services.core.health import Health
from services.core.settings import Settings, VisionSettings
from services.core.topic_admin import ensure_topics
from services.vision.forecaster import Forecaster
from services.vision.service import VisionService

RECORD_FROM: Final = dt.datetime(2012, 1, 1, tzinfo=dt.UTC)
"""The test part's start: nothing recorded was learned from."""
_LEAD_IN: Final = dt.timedelta(days=90)
"""Enough sessions before it for a first window with its moving average."""
_MODE: Final = RunMode.DEMO


async def record(
    forecaster: Forecaster,
    instruments: Sequence[Instrument],
    splits: Sequence[InstrumentEvent],
    stocks: Mapping[str, Sequence[Candle]],
    since: dt.datetime = RECORD_FROM,
) -> list[VisionFeatures]:
    """Return what the service publishes for every closed bar from `since` on; messages carry run mode demo, bars have one interval."""
    candles = _candles((bar for bars in stocks.values() for bar in bars), since)
    settings = Settings(run_mode=_MODE, vision=VisionSettings(intervals=[candles[0].interval]))
    clock = SystemClock()
    bus = MemoryBus(clock)
    admin = await bus.admin()
    await ensure_topics(admin, _MODE, partitions=1)
    await _publish(bus, instruments, splits, candles)
    service = VisionService(bus, settings, clock, forecaster, Health())
    running = asyncio.create_task(service.run())
    try:
        while service.counts.records < len(candles) and not running.done():  # noqa: ASYNC110 - a count has no event
            await asyncio.sleep(0.05)
    finally:
        service.stop()
        await running
    features = await _published(bus, service.counts.published)
    await bus.close()
    from_ms = int(since.timestamp() * 1000)
    return [one for one in features if one.window_end_ms >= from_ms]


def _candles(bars: Iterable[Candle], since: dt.datetime) -> list[Candle]:
    from_ms = int((since - _LEAD_IN).timestamp() * 1000)
    return sorted((bar for bar in bars if bar.ts_close_ms >= from_ms), key=lambda candle: (candle.ts_close_ms, candle.symbol))


async def _publish(bus: MemoryBus, instruments: Sequence[Instrument], splits: Sequence[InstrumentEvent], candles: Sequence[Candle]) -> None:
    producer = await bus.producer(client_id="record")
    for topic, messages in (
        (Topic.INSTRUMENTS, instruments),
        (Topic.INSTRUMENT_EVENTS, splits),
        (Topic.CANDLES, candles),
    ):
        for message in messages:
            await (await producer.send(topic_name(topic, _MODE), key=message.symbol.encode(), value=message.encode()))
    await producer.close()


async def _published(bus: MemoryBus, count: int) -> list[VisionFeatures]:
    reader = await bus.reader(client_id="record")
    await reader.read({TopicPartition(topic_name(Topic.VISION_FEATURES, _MODE), 0): 0})
    features: list[VisionFeatures] = []
    while len(features) < count:
        features += [VisionFeatures.decode(record.value or b"") for record in await reader.poll(timeout_ms=1_000)]
    await reader.close()
    return features
