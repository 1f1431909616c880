"""`aquiline market samples`: the five shipped stocks as a market that goes on, for a stack with nobody's feed.

It goes on where the topic of candles ends, so that a stack that was stopped, or a replay that was killed, repeats nothing.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from schemas import Candle, Message, RunMode, Topic, topic_name
from services.core.bus import Bus, BusError, Producer, TopicPartition
from services.core.bus.connect import connect
from services.core.bus.kafka_cluster import read_cluster_state
from services.core.clock import Clock, SystemClock
from services.core.settings import BusSettings, Settings, SettingsError, load
from services.feeds.replay import AsFastAsPossible, BarsPerSecond, Pace, in_event_time, replay
from services.feeds.samples import load_instruments, load_splits, load_stocks

_DAY: Final = ["%Y-%m-%d"]
_LOOK_S: Final = 0.5
_TAIL: Final = 100
"""So many records of a partition hold the last bar of each stock in it: there are five, and they end their days together."""
_SAY_EVERY: Final = 500

_err = Console(stderr=True)


@dataclass(frozen=True, slots=True)
class Part:
    """What is published: bars that end from `from_ms` on and before `until_ms`, at `pace`."""

    from_ms: int
    until_ms: int | None
    pace: Pace


def samples(
    *,
    history_only: Annotated[
        bool, typer.Option("--history-only", help="Publish the bars before the start, and end once market and vision have read them.")
    ] = False,
    bars_per_second: Annotated[float, typer.Option(min=0.001, help="Sessions a second after the start.")] = 1.5,
    start: Annotated[
        dt.datetime, typer.Option(formats=_DAY, metavar="DATE", help="First day at that pace.", show_default="2006-01-01")
    ] = dt.datetime(2006, 1, 1),  # noqa: DTZ001 - a date
    history_from: Annotated[
        dt.datetime, typer.Option(formats=_DAY, metavar="DATE", help="First day of the history.", show_default="2004-09-01")
    ] = dt.datetime(2004, 9, 1),  # noqa: DTZ001 - a date
    config: Annotated[Path | None, typer.Option(help="Settings file; else AQUILINE_CONFIG and AQUILINE_* variables.")] = None,
) -> None:
    """Play real daily bars of five stocks (AAPL, FB, GOOG, IBM, MSFT, until March 2013) onto the topic `candles`.

    First come the instruments, the splits and, as fast as the broker takes them, the bars before the start; then a session's bars
    at a time. What the topic holds already is not published again.
    """
    settings = load(config)
    if settings.run_mode is RunMode.LIVE:
        raise SettingsError("run_mode = 'live' is for a market that is there, and these bars are years old; choose demo, replay or shadow")
    if not settings.bus.url.startswith("kafka:"):
        raise SettingsError(f"bus.url = {settings.bus.url!r} lives inside one process, so nobody would read the bars; name a kafka:// bus")
    begin_ms, start_ms = _midnight_ms(history_from), _midnight_ms(start)
    parts = [Part(begin_ms, start_ms, AsFastAsPossible())]
    if not history_only:
        parts.append(Part(start_ms, None, BarsPerSecond(bars_per_second)))
    asyncio.run(_play_on(settings, parts, wait=history_only))


async def _play_on(settings: Settings, parts: Sequence[Part], *, wait: bool) -> None:
    """Play, and end at SIGTERM with what was sent acknowledged: the next replay goes on from there."""
    clock = SystemClock()
    bus = connect(settings.bus, clock)
    playing = asyncio.ensure_future(play_on(bus, clock, settings.run_mode, parts))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, playing.cancel)
    try:
        count = await playing
        _err.print(f"{count} candles published on {topic_name(Topic.CANDLES, settings.run_mode)}", highlight=False)
        if wait:
            await _until_read(bus, settings)
    except asyncio.CancelledError:
        _err.print("told to end; the next replay goes on from here", highlight=False)
    finally:
        await bus.close()


async def play_on(bus: Bus, clock: Clock, run_mode: RunMode, parts: Sequence[Part]) -> int:
    """Publish instruments, splits and what the topic of candles lacks of `parts`; return how many candles that was."""
    topic = topic_name(Topic.CANDLES, run_mode)
    played = await _played(bus, topic)
    candles = in_event_time(candle for stock in load_stocks(run_mode).values() for candle in stock)
    producer = await bus.producer(client_id="aquiline-market-samples")
    count = 0

    def on_sent(candle: Candle) -> None:
        nonlocal count
        count += 1
        if count % _SAY_EVERY == 0:
            day = dt.datetime.fromtimestamp(candle.ts_close_ms / 1000, tz=dt.UTC).date()
            _err.print(f"{count} candles, up to {day}", highlight=False)

    try:
        await _publish(producer, topic_name(Topic.INSTRUMENTS, run_mode), load_instruments(run_mode))
        await _publish(producer, topic_name(Topic.INSTRUMENT_EVENTS, run_mode), load_splits(run_mode))
        for part in parts:
            lacking = [
                candle
                for candle in candles
                if candle.ts_close_ms > played.get(candle.symbol, 0)
                and part.from_ms <= candle.ts_close_ms
                and (part.until_ms is None or candle.ts_close_ms < part.until_ms)
            ]
            await replay(lacking, topic=topic, producer=producer, clock=clock, pace=part.pace, on_sent=on_sent)
    finally:
        await producer.close()
    return count


async def _publish(producer: Producer, topic: str, messages: Sequence[Message]) -> None:
    for message in messages:
        await (await producer.send(topic, key=str(message.model_dump()["symbol"]).encode(), value=message.encode()))


async def _played(bus: Bus, topic: str) -> dict[str, int]:
    """Return when the last bar of each stock on the topic ends; raise BusError when there is no such topic."""
    reader = await bus.reader(client_id="aquiline-market-samples-end")
    try:
        partitions = await _partitions(bus, topic)
        begins, ends = await reader.beginning_offsets(partitions), await reader.end_offsets(partitions)
        await reader.read({tp: max(begins[tp], ends[tp] - _TAIL) for tp in partitions if begins[tp] < ends[tp]})
        played: dict[str, int] = {}
        while any(reader.position(tp) < ends[tp] for tp in partitions if begins[tp] < ends[tp]):
            for record in await reader.poll(timeout_ms=200):
                candle = Candle.decode(record.value or b"")
                played[candle.symbol] = candle.ts_close_ms
        return played
    finally:
        await reader.close()


async def _until_read(bus: Bus, settings: Settings) -> None:
    """Return once the groups of market and vision have committed to where the candles end."""
    reader = await bus.reader(client_id="aquiline-market-samples-end")
    try:
        ends = await reader.end_offsets(await _partitions(bus, topic_name(Topic.CANDLES, settings.run_mode)))
    finally:
        await reader.close()
    for group in (settings.market.group, settings.vision.group):
        _err.print(f"waiting until {group} has read them", highlight=False)
        while await _behind(settings.bus, group, ends):  # noqa: ASYNC110 - a group to look at
            await asyncio.sleep(_LOOK_S)


async def _behind(bus: BusSettings, group: str, ends: Mapping[TopicPartition, int]) -> int:
    """Return how many records before `ends` the group has not committed; without a commit all of them."""
    committed = (await read_cluster_state(bus, group)).committed
    return sum(max(0, end - committed.get(tp, 0)) for tp, end in ends.items())


async def _partitions(bus: Bus, topic: str) -> list[TopicPartition]:
    admin = await bus.admin()
    try:
        found = await admin.describe([topic])
    finally:
        await admin.close()
    if topic not in found:
        raise BusError(f"topic {topic!r} does not exist on {bus.address}; create it with `aquiline topics create`")
    return [TopicPartition(topic, number) for number in range(found[topic].partitions)]


def _midnight_ms(day: dt.datetime) -> int:
    return int(day.replace(tzinfo=dt.UTC).timestamp() * 1000)
