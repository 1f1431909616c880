"""The shipped stocks as a market that goes on: nothing twice, nothing left out, wherever an earlier run stopped."""

from __future__ import annotations

import pytest

from schemas import Candle, RunMode, Topic, topic_name
from services.core.bus import Bus, TopicPartition
from services.core.bus.connect import connect
from services.core.clock import SystemClock
from services.core.errors import ServiceError
from services.core.instruments import Instruments
from services.core.settings import BusSettings
from services.core.topic_admin import ensure_topics
from services.feeds.paced_publishing import AsFastAsPossible, in_event_time
from services.feeds.play_samples import Part, play_on
from services.feeds.samples import SYMBOLS, load_instruments, load_stocks

MODE = RunMode.DEMO
ALL = in_event_time(candle for stock in load_stocks(MODE).values() for candle in stock)
PARTITIONS = 4


async def candles(bus: Bus) -> list[Candle]:
    reader = await bus.reader(client_id="look")
    partitions = [TopicPartition(topic_name(Topic.CANDLES, MODE), number) for number in range(PARTITIONS)]
    await reader.read(dict.fromkeys(partitions, 0))
    ends = await reader.end_offsets(partitions)
    found: list[Candle] = []
    while any(reader.position(tp) < end for tp, end in ends.items()):
        found += [Candle.decode(record.value or b"") for record in await reader.poll(timeout_ms=100)]
    await reader.close()
    return in_event_time(found)


async def test_a_replay_goes_on_where_an_earlier_one_stopped_even_between_two_stocks_of_a_session() -> None:
    clock = SystemClock()
    bus = connect(BusSettings(url="memory://"), clock)
    await ensure_topics(await bus.admin(), MODE, PARTITIONS)
    until_ms = ALL[1_000].ts_close_ms
    wanted = [candle for candle in ALL if candle.ts_close_ms < until_ms]
    cut = next(place for place in range(500, 600) if ALL[place].ts_close_ms == ALL[place - 1].ts_close_ms)
    producer = await bus.producer(client_id="killed")
    for candle in wanted[:cut]:
        await (await producer.send(topic_name(Topic.CANDLES, MODE), key=candle.symbol.encode(), value=candle.encode()))
    part = Part(0, until_ms, AsFastAsPossible())
    assert await play_on(bus, clock, MODE, [part]) == len(wanted) - cut
    assert await candles(bus) == wanted
    assert await play_on(bus, clock, MODE, [part]) == 0
    assert await play_on(bus, clock, MODE, [part, Part(until_ms, None, AsFastAsPossible())]) == len(ALL) - len(wanted)
    assert await candles(bus) == ALL
    known = Instruments(bus, clock, MODE, "look")
    await known.start()
    assert known.symbols() == sorted(SYMBOLS.values())
    assert {symbol: len(known.restatements(symbol)) for symbol in known.symbols() if known.restatements(symbol)} == {
        "AAPL.XNAS": 2,
        "MSFT.XNAS": 1,
    }
    await known.close()
    await bus.close()


async def test_the_samples_are_refused_where_they_would_stand_beside_lives_instruments() -> None:
    clock = SystemClock()
    bus = connect(BusSettings(url="memory://"), clock)
    await ensure_topics(await bus.admin(), RunMode.LIVE, PARTITIONS)
    part = Part(0, ALL[10].ts_close_ms, AsFastAsPossible())
    assert await play_on(bus, clock, RunMode.SHADOW, [part]) > 0
    assert await play_on(bus, clock, RunMode.SHADOW, [part]) == 0, "those of an earlier run of the samples are none of live's"
    producer = await bus.producer(client_id="live")
    theirs = load_instruments(RunMode.LIVE)[0]
    await (await producer.send(topic_name(Topic.INSTRUMENTS, RunMode.LIVE), key=theirs.symbol.encode(), value=theirs.encode()))
    with pytest.raises(ServiceError, match="'instruments' on memory:// holds instruments of run mode live"):
        await play_on(bus, clock, RunMode.SHADOW, [part])
    await bus.close()
