"""A desk: a real Kafka, Redis and simulator, a fusion worker, a scorer and a console as processes, and decisions that they have made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from deploy.local.process import free_port
from schemas import Message, RunMode, Topic, topic_name
from services.core.bus import Position
from services.core.bus.kafka import KafkaBus
from services.core.clock import SystemClock
from services.core.settings import BusSettings
from services.core.topic_admin import ensure_topics
from tests.integration.fusion.feed import bar, instrument, window
from tests.integration.fusion.logs import Logs
from tests.integration.fusion.site import HISTORY_BARS, PARTITIONS, Site
from tests.integration.fusion.waiting import until
from tests.integration.fusion.worker import Worker

TOKEN = "console-token-of-the-tests"
SYMBOLS = ("COIN0-USD.CBSE", "COIN1-USD.CBSE")
_BARS = 45
_IN_STEP = 3
"""Bars a symbol at once: more would only be conflated."""


@dataclass
class Desk:
    """What the tests talk to."""

    folder: Path
    kafka_url: str
    values: dict[str, Any]
    console: Worker
    fusion: Worker
    scorer: Worker
    port: int
    next_bar: int = 0

    @property
    def url(self) -> str:
        """Return the console's address."""
        return f"http://127.0.0.1:{self.port}"

    def start_console(self) -> Worker:
        """Start another console process in place of the one before, on the same port."""
        self.console.kill()
        self.console = _console(self.folder, self.values, self.port, self.fusion.port).start()
        return self.console

    def close(self) -> None:
        """End every process."""
        for process in (self.console, self.scorer, self.fusion):
            process.kill()

    async def publish(self, topic: Topic, messages: Sequence[tuple[str, Message | bytes]]) -> list[Position]:
        """Publish messages, or any bytes, by key, and return where they are."""
        bus = KafkaBus(BusSettings(url=self.kafka_url, request_timeout_ms=5_000), SystemClock())
        producer = await bus.producer(client_id="tests")
        try:
            name = topic_name(topic, RunMode.DEMO)
            sent = [
                await producer.send(name, key=key.encode(), value=value if isinstance(value, bytes) else value.encode())
                for key, value in messages
            ]
            return [await one for one in sent]
        finally:
            await producer.close()
            await bus.close()

    async def feed(self, bars: int = 1) -> None:
        """Publish the next closed bars of every symbol: the worker decides on them."""
        made = [bar(symbol, self.next_bar + at) for at in range(bars) for symbol in SYMBOLS]
        self.next_bar += bars
        await self.publish(Topic.MARKET_FEATURES, [(one.symbol, one) for one in made])


def _console(folder: Path, values: dict[str, Any], port: int, worker_port: int) -> Worker:
    section = {"port": port, "token": TOKEN, "worker_urls": [f"http://127.0.0.1:{worker_port}"]}
    return Worker(folder, "console", {**values, "console": section}, service="console")


async def open_desk(folder: Path, kafka_url: str, redis_url: str, engine_url: str) -> Desk:
    """Start everything, and return once decisions have been made, judged and read by the console."""
    site = Site(folder, kafka_url, redis_url, engine_url)
    site.values["scoring"] = {"group": f"scoring-{site.unique}", "commit_interval_ms": 100}
    admin = await site.bus.admin()
    try:
        await ensure_topics(admin, RunMode.DEMO, PARTITIONS)
    finally:
        await admin.close()
    port = free_port()
    fusion = site.worker()
    scorer = Worker(folder, "scorer", site.values, service="scoring")
    desk = Desk(folder, kafka_url, site.values, _console(folder, site.values, port, fusion.port), fusion, scorer, port)
    try:
        await desk.publish(Topic.INSTRUMENTS, [(symbol, instrument(symbol)) for symbol in SYMBOLS])
        await desk.feed(HISTORY_BARS)
        await desk.publish(Topic.VISION_FEATURES, [(symbol, window(symbol, HISTORY_BARS - 1)) for symbol in SYMBOLS])
        await asyncio.gather(scorer.start().ready(), fusion.start().ready())
        await _decide(desk, site.logs)
        await desk.console.start().ready()
        await until(lambda: _judged(desk), "the scorer's results on the console", told=scorer.tail)
    except BaseException:
        desk.close()
        raise
    return desk


async def _decide(desk: Desk, logs: Logs) -> None:
    """Feed bars until each has an outcome."""
    await logs.open()
    try:
        for fed in range(_IN_STEP, _BARS + 1, _IN_STEP):
            await desk.feed(_IN_STEP)
            wanted = fed * len(SYMBOLS)
            await logs.until(lambda wanted=wanted: len(logs.ended) >= wanted, "an outcome for every bar", told=desk.fusion.tail)  # type: ignore[misc]
    finally:
        await logs.close()


async def _judged(desk: Desk) -> bool:
    async with client(desk) as session, session.get("/api/score") as answer:
        sides = (await answer.json())["sides"]
    return bool(sides) and sides[0]["completed"] > 0


@asynccontextmanager
async def client(desk: Desk, *, token: bool = False) -> AsyncIterator[aiohttp.ClientSession]:
    """Yield a client of the console, with the token as a bearer if wanted."""
    headers = {"Authorization": f"Bearer {TOKEN}"} if token else {}
    async with aiohttp.ClientSession(desk.url, headers=headers, timeout=aiohttp.ClientTimeout(total=90)) as session:
        yield session


async def get(desk: Desk, path: str) -> Any:
    """Return the JSON at a path of the API."""
    async with client(desk) as session, session.get(path) as answer:
        body = await answer.read()
        assert answer.status == 200, (path, answer.status, body)
        return orjson.loads(body)


async def eventually(read: Callable[[], Awaitable[bool]], what: str, desk: Desk) -> None:
    """Return once `read` does."""
    await until(read, what, told=desk.console.tail)
