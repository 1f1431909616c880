"""Plays the five shipped stocks onto the topic `candles` as a market that continues where the topic ends.

A run that was stopped or killed repeats nothing: what the topic holds already is not published again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from schemas import Candle, Instrument, Message, RunMode, Topic, topic_name
from services.core.bus import Bus, Producer, TopicPartition
from services.core.bus.kafka_cluster import read_cluster_state
from services.core.bus.topic_reader import TimeRange, offsets_within, partitions_of, read_offsets
from services.core.clock import Clock
from services.core.errors import ServiceError
from services.core.settings import BusSettings, Settings
from services.feeds.paced_publishing import Pace, in_event_time, publish_at_pace
from services.feeds.samples import load_instruments, load_splits, load_stocks

_CLIENT: Final = "aquiline-market-samples"
_POLL_S: Final = 0.5
_TAIL: Final = 100
"""The last records of a partition that hold the last bar of each stock in it: there are five, and they end their days together."""


@dataclass(frozen=True, slots=True)
class Part:
    """Bars that end from `from_ms` on and before `until_ms`, published at `pace`."""

    from_ms: int
    until_ms: int | None
    pace: Pace


async def play_on(
    bus: Bus, clock: Clock, run_mode: RunMode, parts: Sequence[Part], on_sent: Callable[[int, Candle], None] = lambda _, __: None
) -> int:
    """Publish instruments, splits and those candles of `parts` that the topic does not hold; return the count of candles.

    `on_sent` is called with the count so far and the candle. Raises BusError, and ServiceError where live's instruments stand.
    """
    await _refuse_live(bus, run_mode)
    topic = topic_name(Topic.CANDLES, run_mode)
    played = await _last_played(bus, topic)
    candles = in_event_time(candle for stock in load_stocks(run_mode).values() for candle in stock)
    producer = await bus.producer(client_id=_CLIENT)
    count = 0

    def sent(candle: Candle) -> None:
        nonlocal count
        count += 1
        on_sent(count, candle)

    try:
        await _publish(producer, topic_name(Topic.INSTRUMENTS, run_mode), load_instruments(run_mode))
        await _publish(producer, topic_name(Topic.INSTRUMENT_EVENTS, run_mode), load_splits(run_mode))
        for part in parts:
            missing = [
                candle
                for candle in candles
                if candle.ts_close_ms > played.get(candle.symbol, 0)
                and part.from_ms <= candle.ts_close_ms
                and (part.until_ms is None or candle.ts_close_ms < part.until_ms)
            ]
            await publish_at_pace(missing, topic=topic, producer=producer, clock=clock, pace=part.pace, on_sent=sent)
    finally:
        await producer.close()
    return count


async def wait_until_read(bus: Bus, settings: Settings, on_wait: Callable[[str], None]) -> None:
    """Return once the groups of market and vision have committed the end of the candles; `on_wait` gets each group's name."""
    reader = await bus.reader(client_id=_CLIENT)
    try:
        ends = await reader.end_offsets(await partitions_of(bus, topic_name(Topic.CANDLES, settings.run_mode)))
    finally:
        await reader.close()
    for group in (settings.market.group, settings.vision.group):
        on_wait(group)
        while await _behind(settings.bus, group, ends):  # noqa: ASYNC110 - a group's commits send no event
            await asyncio.sleep(_POLL_S)


async def _publish(producer: Producer, topic: str, messages: Sequence[Message]) -> None:
    for message in messages:
        await (await producer.send(topic, key=str(message.model_dump()["symbol"]).encode(), value=message.encode()))


async def _refuse_live(bus: Bus, run_mode: RunMode) -> None:
    """Raise ServiceError where the topic of instruments holds one of live: `shadow` shares live's inputs, which old bars would spoil."""
    topic = topic_name(Topic.INSTRUMENTS, run_mode)
    reader = await bus.reader(client_id=_CLIENT)
    try:
        async for record in read_offsets(reader, await offsets_within(reader, await partitions_of(bus, topic), TimeRange())):
            if record.value is not None and Instrument.decode(record.value).run_mode is RunMode.LIVE:
                raise ServiceError(
                    f"topic {topic!r} on {bus.address} holds instruments of run mode live, whose inputs {run_mode.value} shares: "
                    'the samples would replace instruments and add bars of past years; set run_mode = "demo", or use another broker'
                )
    finally:
        await reader.close()


async def _last_played(bus: Bus, topic: str) -> dict[str, int]:
    """Return when the last bar of each stock on the topic ends."""
    reader = await bus.reader(client_id=_CLIENT)
    try:
        held = await offsets_within(reader, await partitions_of(bus, topic), TimeRange())
        played: dict[str, int] = {}
        async for record in read_offsets(reader, {tp: offsets[-_TAIL:] for tp, offsets in held.items()}):
            candle = Candle.decode(record.value or b"")
            played[candle.symbol] = candle.ts_close_ms
        return played
    finally:
        await reader.close()


async def _behind(bus: BusSettings, group: str, ends: Mapping[TopicPartition, int]) -> int:
    """Return how many records before `ends` the group has not committed; without a commit, all of them."""
    committed = (await read_cluster_state(bus, group)).committed
    return sum(max(0, end - committed.get(tp, 0)) for tp, end in ends.items())
