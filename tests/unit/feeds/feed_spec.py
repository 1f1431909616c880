"""What a live feed promises on any bus; each bus' tests inherit it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from schemas import Candle, Instrument, RunMode, Topic, topic_name
from services.core.bus import Bus
from services.core.bus.topic_reader import TimeRange, read_within
from services.core.health import Health
from services.core.settings import SettingsError
from services.core.topic_admin import ensure_topics
from services.feeds.ccxt_exchange import Exchange
from services.feeds.exchange_feed import Backoff, ExchangeFeed, FeedRequest
from tests.unit.feeds.fake_binance import MINUTE, FakeBinance, FastClock, final

MODE = RunMode.DEMO
SYMBOL = "BTC-USDT.BINANCE"
LIVE = FeedRequest({"BTC/USDT": SYMBOL}, "1m", history_bars=20, poll_ms=10_000)


async def records(bus: Bus, topic: Topic) -> list[bytes]:
    """Return the values on a topic."""
    reader = await bus.reader(client_id="look")
    try:
        return [record.value or b"" async for record in read_within(bus, reader, topic_name(topic, MODE), TimeRange())]
    finally:
        await reader.close()


async def candles(bus: Bus) -> list[Candle]:
    return [candle for candle in map(Candle.decode, await records(bus, Topic.CANDLES)) if candle.symbol == SYMBOL]


async def closed(bus: Bus) -> list[Candle]:
    return [candle for candle in await candles(bus) if candle.closed]


async def until(bus: Bus, enough: Callable[[list[Candle]], bool]) -> list[Candle]:
    """Return the candles on the topic once they are `enough`."""
    while not enough(held := await candles(bus)):  # noqa: ASYNC110 - a topic has no event
        await asyncio.sleep(0.05)
    return held


@contextlib.asynccontextmanager
async def running(bus: Bus, server: FakeBinance, clock: FastClock, live: FeedRequest = LIVE) -> AsyncIterator[ExchangeFeed]:
    """Run a feed, and have it end by itself alone."""
    exchange = Exchange("binance", server.options, MODE, clock)
    feed = ExchangeFeed(live, exchange, bus, clock, health=Health(), pause=Backoff())
    task = asyncio.ensure_future(feed.run())
    try:
        yield feed
    finally:
        if task.done():
            task.result()
        feed.stop()
        await task


def check_whole(held: list[Candle]) -> None:
    """Assert that closed bars are there once each, in order, without a hole, and as they were when they had ended."""
    bars = [candle for candle in held if candle.closed and candle.revision == 0]
    opens = [bar.ts_open_ms for bar in bars]
    assert opens == list(range(opens[0], opens[-1] + MINUTE, MINUTE))
    assert [(bar.open, bar.high, bar.low, bar.close, bar.volume) for bar in bars] == [final(open_ms) for open_ms in opens]


class FeedSpec:
    """The promises."""

    async def test_instruments_come_from_the_exchange_and_candles_forming_and_closed(self, bus: Bus, clock: FastClock) -> None:
        async with FakeBinance(clock) as server, running(bus, server, clock):
            held = await until(bus, lambda now: sum(one.closed for one in now) >= 24 and any(not one.closed for one in now))
        check_whole(held)
        (instrument,) = [Instrument.decode(value) for value in await records(bus, Topic.INSTRUMENTS)]
        assert (instrument.symbol, instrument.currency, instrument.calendar) == (SYMBOL, "USDT", "24x7")
        assert (instrument.price_increment, instrument.lot_size, instrument.min_notional) == ("0.01", "0.00001", "5")
        assert (instrument.asset_class, instrument.fee_bps) == ("crypto", 10)

    @pytest.mark.parametrize("ahead_ms", [-90_000, 90_000])
    async def test_a_bar_closes_by_the_exchanges_clock_and_not_by_ours(self, bus: Bus, clock: FastClock, ahead_ms: int) -> None:
        async with FakeBinance(clock, ahead_ms) as server, running(bus, server, clock):
            check_whole(await until(bus, lambda now: sum(one.closed for one in now) >= 24))

    async def test_faults_on_the_way_leave_no_hole_and_nothing_twice(self, bus: Bus, clock: FastClock) -> None:
        faults = ["disconnect", "rate_limit", "banned", "maintenance", "page", "not_json", "cut", "nulls"]
        async with FakeBinance(clock) as server, running(bus, server, clock):
            await until(bus, lambda now: sum(one.closed for one in now) >= 20)
            server.faults.extend(faults)
            count = len(await closed(bus))
            held = await until(bus, lambda now: not server.faults and sum(one.closed for one in now) >= count + 5)
        check_whole(held)

    async def test_a_feed_goes_on_where_the_topic_ends_and_fills_what_it_missed(self, bus: Bus, clock: FastClock) -> None:
        async with FakeBinance(clock) as server:
            async with running(bus, server, clock):
                await until(bus, lambda now: sum(one.closed for one in now) >= 21)
            last_ms = (await closed(bus))[-1].ts_close_ms
            await clock.sleep_until(last_ms + 30 * MINUTE)
            server.page_bars = 7  # shorter than what was missed, so that it comes in pages
            async with running(bus, server, clock):
                held = await until(bus, lambda now: any(one.closed and one.ts_close_ms > last_ms + 31 * MINUTE for one in now))
        check_whole(held)

    async def test_a_bar_that_the_exchange_corrects_comes_again_with_a_higher_revision(self, bus: Bus, clock: FastClock) -> None:
        async with FakeBinance(clock) as server:
            async with running(bus, server, clock):
                await until(bus, lambda now: sum(one.closed for one in now) >= 20)
            last = (await closed(bus))[-1]
            server.amended.add(last.ts_open_ms)
            async with running(bus, server, clock):
                held = await until(bus, lambda now: any(one.revision for one in now))
        (revised,) = [one for one in held if one.revision]
        assert (revised.ts_open_ms, revised.revision, revised.volume) == (last.ts_open_ms, 1, last.volume + 1)
        check_whole(held)

    async def test_a_market_or_interval_that_the_exchange_does_not_have_is_said(self, bus: Bus, clock: FastClock) -> None:
        async with FakeBinance(clock) as server:
            for live, problem in (
                (FeedRequest({"BTC/EUR": SYMBOL}, "1m", 20, 1_000), "--symbol 'BTC/EUR' is not a market of binance; it has BTC/USDT"),
                (FeedRequest({"BTC/USDT": SYMBOL}, "7m", 20, 1_000), "--interval '7m' is not an interval of binance; it has 1s, 1m"),
            ):
                feed = ExchangeFeed(live, Exchange("binance", server.options, MODE, clock), bus, clock, health=Health(), pause=Backoff())
                with pytest.raises(SettingsError, match=problem):
                    await feed.run()


async def with_topics(bus: Bus) -> Bus:
    """Return the bus with the topics of these tests."""
    await ensure_topics(await bus.admin(), MODE, 4)
    return bus
