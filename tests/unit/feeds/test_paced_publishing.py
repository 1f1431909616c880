"""Candles are published merged by event time, at the pace that was asked for."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from schemas import Candle
from services.core.bus import NewTopic, TopicPartition
from services.core.bus.memory import MemoryBus
from services.core.clock import VirtualClock
from services.feeds.paced_publishing import AsFastAsPossible, BarsPerSecond, RealTime, in_event_time, publish_at_pace, schedule
from tests.unit.market.build import MINUTE, MONDAY, candle

TWO = [candle(MONDAY + number * MINUTE, symbol=symbol) for symbol in ("A.X1", "B.X1") for number in (0, 1, 3)]


@given(st.permutations(TWO))
def test_files_in_any_order_are_played_by_time_then_symbol(candles: list[Candle]) -> None:
    played = in_event_time(candles)
    assert [(one.ts_open_ms, one.symbol) for one in played] == sorted((one.ts_open_ms, one.symbol) for one in TWO)


def test_of_bars_that_end_together_the_shorter_come_first() -> None:
    hour, minute = candle(MONDAY, interval="1h"), candle(MONDAY + 59 * MINUTE)
    assert in_event_time([hour, minute]) == [minute, hour]


def test_each_pace_has_its_due_times() -> None:
    candles = in_event_time(TWO)
    assert [due for due, _ in schedule(candles, AsFastAsPossible())] == [0] * 6
    assert [due for due, _ in schedule(candles, BarsPerSecond(2))] == [0, 0, 500, 500, 1_000, 1_000]
    assert [due for due, _ in schedule(candles, RealTime(60))] == [0, 0, 1_000, 1_000, 3_000, 3_000]


async def test_candles_are_published_when_they_are_due() -> None:
    clock = VirtualClock(1_000)
    bus = MemoryBus(clock)
    await (await bus.admin()).create([NewTopic("candles", 1, {})])
    sent: list[Candle] = []
    playing = asyncio.create_task(
        publish_at_pace(
            in_event_time(TWO),
            topic="candles",
            producer=await bus.producer(client_id="test"),
            clock=clock,
            pace=BarsPerSecond(2),
            on_sent=sent.append,
        )
    )
    for count in (2, 4, 6):
        while len(sent) < count:  # noqa: ASYNC110 - the other task needs turns of the loop, not time
            await asyncio.sleep(0)
        assert len(sent) == count
        clock.advance_to(clock.now_ms() + 500)
    assert await playing == 6
    reader = await bus.reader(client_id="test")
    await reader.read({TopicPartition("candles", 0): 0})
    records = await reader.poll(timeout_ms=1_000)
    assert [record.timestamp_ms for record in records] == [1_000, 1_000, 1_500, 1_500, 2_000, 2_000]
    assert [(record.key, Candle.decode(record.value or b"")) for record in records] == [(one.symbol.encode(), one) for one in sent]
