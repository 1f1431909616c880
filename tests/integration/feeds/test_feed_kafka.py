"""Live feeds on a real Kafka, and as processes that are killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator

import pytest

from schemas import Candle, Topic
from services.core.bus import Bus, NewTopic
from services.core.bus.kafka import KafkaBus
from services.core.clock import SystemClock
from services.core.settings import BusSettings
from tests.unit.core.folding.desk import TOPICS
from tests.unit.feeds.fake_binance import FakeBinance, FastClock, final
from tests.unit.feeds.feed_spec import FeedSpec, candles

pytestmark = pytest.mark.integration

SECOND = 1_000


@pytest.fixture
def clock() -> FastClock:
    return FastClock()


@pytest.fixture
async def bus(kafka_bus_settings: BusSettings) -> AsyncIterator[Bus]:
    made = KafkaBus(kafka_bus_settings, SystemClock())
    admin = await made.admin()
    names = [TOPICS[Topic.CANDLES], TOPICS[Topic.INSTRUMENTS]]
    there = await admin.describe(names)
    # Without compaction, unlike the real ones: a compacted topic cannot be emptied between tests.
    await admin.create([NewTopic(name, 4, {}) for name in names])
    await admin.truncate(list(there))
    await admin.close()
    yield made
    await made.close()


class TestOnKafka(FeedSpec):
    """The common promises."""


async def start(url: str, server: FakeBinance) -> asyncio.subprocess.Process:
    """Start `aquiline feed ccxt` as a process, with bars of a second."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AQUILINE_")}
    options = [f"urls.api.public={server.url}", 'options.fetchMarkets={"types":["spot"]}', "rateLimit=1"]
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from services.cli.main import main; main()",
        *("feed", "ccxt", "--exchange", "binance", "--symbol", "BTC/USDT", "--interval", "1s", "--history-bars", "5"),
        *("--poll-seconds", "0.3", "--bus", url),
        *(word for option in options for word in ("--option", option)),
        env={**clean, "AQUILINE_RUN_MODE": "demo", "AQUILINE_HTTP__PORT": "0"},
    )


async def closed_after(bus: Bus, last_ms: int, count: int) -> list[Candle]:
    """Return the closed bars once so many of them ended after `last_ms`."""
    async with asyncio.timeout(120):
        while True:
            held = [one for one in await candles(bus) if one.closed]
            if sum(one.ts_close_ms > last_ms for one in held) >= count:
                return held
            await asyncio.sleep(0.1)


async def test_a_feed_that_is_killed_again_and_again_leaves_no_hole_and_repeats_nothing(bus: Bus, kafka_bus_settings: BusSettings) -> None:
    held: list[Candle] = []
    async with FakeBinance(SystemClock()) as server:
        for number in (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM):
            process = await start(kafka_bus_settings.url, server)
            held = await closed_after(bus, held[-1].ts_close_ms if held else 0, 7)
            process.send_signal(number)
            code = await asyncio.wait_for(process.wait(), 30)
            assert code == (0 if number is signal.SIGTERM else -number)
    held = [one for one in await candles(bus) if one.closed]
    opens = [one.ts_open_ms for one in held]
    assert opens == list(range(opens[0], opens[-1] + SECOND, SECOND))
    assert [(one.open, one.high, one.low, one.close, one.volume) for one in held] == [final(open_ms, SECOND) for open_ms in opens]
