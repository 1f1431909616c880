"""Files that grow, on the bus in memory: what is appended is published once, in order, whenever the feed starts anew."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from schemas import Candle, Instrument, RunMode, Topic, topic_name
from services.core.bus import Bus
from services.core.bus.connect import connect
from services.core.bus.topic_reader import TimeRange, read_within
from services.core.clock import SystemClock
from services.core.errors import ServiceError
from services.core.health import Health
from services.core.settings import BusSettings
from services.feeds.file_feed import FileFeed
from services.feeds.read_options import ReadOptions
from tests.unit.feeds.feed_spec import with_topics

MODE = RunMode.DEMO
OPTIONS = ReadOptions(MODE, "BTC-USD.CBSE", "1m", "24x7", 0)
HEADER = "time,open,high,low,close,volume\n"
BEGIN_S = 1_720_009_800


def line(minute: int, close: float = 1.0, begin_s: int = BEGIN_S) -> str:
    return f"{begin_s + 60 * minute},1,2,1,{close},{minute}\n"


@pytest.fixture
async def bus() -> AsyncIterator[Bus]:
    made = await with_topics(connect(BusSettings(url="memory://"), SystemClock()))
    yield made
    await made.close()


async def published(bus: Bus, topic: Topic = Topic.CANDLES) -> list[bytes]:
    reader = await bus.reader(client_id="look")
    return [record.value or b"" async for record in read_within(bus, reader, topic_name(topic, MODE), TimeRange())]


async def until(bus: Bus, enough: Callable[[list[Candle]], bool]) -> list[Candle]:
    while not enough(held := [Candle.decode(value) for value in await published(bus)]):  # noqa: ASYNC110 - a topic has no event
        await asyncio.sleep(0.02)
    return held


def feed(bus: Bus, path: Path, *, follow: bool = True, increment: str | None = None) -> FileFeed:
    return FileFeed([path], OPTIONS, bus, SystemClock(), Health(), follow=follow, price_increment=increment, currency="USD")


@contextlib.asynccontextmanager
async def following(bus: Bus, path: Path) -> AsyncIterator[None]:
    made = feed(bus, path)
    task = asyncio.ensure_future(made.run())
    yield
    made.stop()
    await task


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


async def test_what_is_appended_is_published_once_its_line_has_ended(bus: Bus, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    async with following(bus, path):
        append(path, HEADER + line(0) + line(1))
        assert len(await until(bus, lambda held: len(held) == 2)) == 2
        append(path, line(2)[:-3])
        append(path, line(2)[-3:] + line(3))
        held = await until(bus, lambda now: len(now) >= 4)
    assert [one.volume for one in held] == [0, 1, 2, 3]


async def test_a_feed_goes_on_where_the_topic_ends(bus: Bus, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    append(path, HEADER + "".join(map(line, range(250))))
    await feed(bus, path, follow=False, increment="0.01").run()
    append(path, "".join(map(line, range(250, 300))))
    await feed(bus, path, follow=False).run()
    await feed(bus, path, follow=False).run()
    assert [Candle.decode(value).volume for value in await published(bus)] == list(range(300))
    assert [Instrument.decode(value).price_increment for value in await published(bus, Topic.INSTRUMENTS)] == ["0.01"]


async def test_a_row_that_changes_comes_as_a_correction(bus: Bus, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    append(path, HEADER + line(0) + line(1))
    async with following(bus, path):
        await until(bus, lambda held: len(held) == 2)
        append(path, line(1, close=1.5))
        held = await until(bus, lambda now: len(now) == 3)
    assert [(one.close, one.revision) for one in held] == [(1.0, 0), (1.0, 0), (1.5, 1)]


async def test_a_bar_forms_until_it_has_ended(bus: Bus, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    now_s = SystemClock().now_ms() // 60_000 * 60
    append(path, HEADER + line(0, begin_s=now_s - 60) + line(1, begin_s=now_s - 60))
    async with following(bus, path):
        held = await until(bus, lambda now: len(now) >= 2)
    assert held[0].closed
    assert [one.closed for one in held if one.ts_close_ms > SystemClock().now_ms()] in ([False], [])


async def test_a_row_that_is_none_stops_what_is_followed_until_it_is_mended(bus: Bus, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    append(path, HEADER + line(0))
    async with following(bus, path):
        await until(bus, lambda held: len(held) == 1)
        append(path, "soon,1,1,1,1,1\n" + line(1))
        path.write_text(HEADER + line(0) + line(1))
        assert len(await until(bus, lambda held: len(held) == 2)) == 2


async def test_a_file_that_cannot_be_read_is_said_where_it_is_not_followed(bus: Bus, tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="there is no such file"):
        await feed(bus, tmp_path / "none.csv", follow=False).run()
