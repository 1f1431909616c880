"""The score of a live worker and of its shadow, side by side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from selenium.webdriver import Chrome

from deploy.local import LocalKafka, LocalRedis
from deploy.local.process import free_port
from schemas import SPECS, HaltState, RunMode
from services.core.topic_admin import ensure_topics
from tests.integration.console.page import Page
from tests.integration.fusion.engines import Reply, ScriptedEngine
from tests.integration.fusion.logs import Logs
from tests.integration.fusion.site import PARTITIONS, Site
from tests.integration.fusion.worker import Worker

pytestmark = pytest.mark.integration

SYMBOLS = ("COIN0-USD.CBSE", "COIN1-USD.CBSE")
BUY = '{"action":"buy","conviction":60,"horizon":5,"entry":2,"stop":-12,"target":25,"rationale":"as told"}'
SELL = '{"action":"sell","conviction":80,"horizon":5,"entry":-2,"stop":12,"target":-25,"rationale":"as told"}'
BARS = 40
"""Of a symbol: about a quarter of the orders is filled."""
# The site empties its topics, and the scorer refuses a topic of its judges that is not compacted.
_EMPTIED = {topic: {"cleanup.policy": "compact,delete", "retention.ms": "-1"} for topic, spec in SPECS.items() if spec.compacted}


def _answering(text: str) -> ScriptedEngine:
    async def answer(reply: Reply) -> None:
        await reply.send(text, "stop")

    engine = ScriptedEngine()
    engine.good = answer  # type: ignore[method-assign]
    return engine


@dataclass
class Pair:
    """A live site, its shadow's topics, and the console over both."""

    site: Site
    shadow: Logs
    url: str

    async def decide(self) -> None:
        """Feed one bar a symbol, and return when both workers have ended its trigger: more at once would be conflated."""
        due = len(self.site.logs.ended) + len(await self.site.feed(SYMBOLS))
        for logs in (self.site.logs, self.shadow):
            await logs.until(lambda logs=logs: len(logs.ended) == due, "an outcome for every bar", told=self.site.tails)  # type: ignore[misc]

    async def sides(self) -> list[dict[str, Any]]:
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/api/score") as answer:
            sides: list[dict[str, Any]] = (await answer.json())["sides"]
            return sides


@asynccontextmanager
async def _live_and_shadow(folder: Path, kafka: LocalKafka, redis: LocalRedis) -> AsyncIterator[Pair]:
    async with AsyncExitStack() as stack:
        buying, selling = [await stack.enter_async_context(_answering(text).serving()) for text in (BUY, SELL)]
        site = Site(folder, kafka.url, redis.url, buying.url, RunMode.LIVE)
        admin = await site.bus.admin()
        try:
            for mode in (RunMode.LIVE, RunMode.SHADOW):
                await ensure_topics(admin, mode, PARTITIONS, overrides=_EMPTIED)
        finally:
            await admin.close()
        await site.open(symbols=SYMBOLS)
        stack.push_async_callback(site.close)
        shadow = Logs(site.bus, RunMode.SHADOW, PARTITIONS)
        await shadow.open()
        stack.push_async_callback(shadow.close)

        port = free_port()
        live = site.merged(scoring={"group": f"scoring-{site.unique}", "commit_interval_ms": 100}, console={"port": port})
        candidate = {**live, "run_mode": "shadow", "engine": {**live["engine"], "urls": [selling.url]}}
        processes = [
            Worker(folder, "live", live),
            Worker(folder, "shadow", candidate),
            Worker(folder, "live-scorer", live, service="scoring"),
            Worker(folder, "shadow-scorer", candidate, service="scoring"),
            Worker(folder, "console", live, service="console"),
        ]
        site.workers += processes
        for process in processes:
            process.start()
        for process in processes:
            await process.ready()
        await site.say(HaltState.ACTIVE)

        async def active() -> bool:
            return await processes[0].metric("aquiline_halted") == 0

        await site.eventually(active, "live to be resumed")
        yield Pair(site, shadow, f"http://127.0.0.1:{port}")


def _shows_its_sides(page: Page) -> bool:
    """Return whether the page shows the numbers that the API gives; the scorers may still be judging."""
    sides = page.driver.execute_async_script("fetch('/api/score').then(one => one.json()).then(one => arguments[0](one.sides))")
    for side, box in zip(sides, page.all(".grid.two > .stack"), strict=True):
        value, low, high = (f"{100 * one:.1f} %" for one in side["hit_rate"])
        if f"{side['opened']} opened, {side['completed']} completed" not in box.text or f"{value}\n95 %: {low} to {high}" not in box.text:
            return False
    return True


def _look(page: Page) -> None:
    page.size(1440)
    page.scheme("light")
    page.open("/score")
    page.until(lambda: len(page.all("h2.side")) == 2, "both sides")
    assert [one.text.lower() for one in page.all("h2.side")] == ["live", "shadow"]
    page.until(lambda: _shows_its_sides(page), "the counts and intervals of both sides")
    left, right = (box.rect["x"] for box in page.all(".grid.two > .stack"))
    assert left < right, "beside each other"
    assert page.errors() == []
    page.size(390, 844)
    page.open("/score")
    page.until(lambda: len(page.all("h2.side")) == 2, "both sides on a phone")
    assert page.driver.execute_script("return document.documentElement.scrollWidth") <= 390
    page.leave()


async def test_the_score_shows_a_shadow_beside_live_with_counts_and_intervals(
    browser: Chrome, console_kafka: LocalKafka, redis_server: LocalRedis, tmp_path: Path
) -> None:
    async with _live_and_shadow(tmp_path, console_kafka, redis_server) as pair:
        for _ in range(BARS):
            await pair.decide()
        assert {one.action for one in pair.site.logs.ended.values()} == {"buy"}
        assert {one.action for one in pair.shadow.ended.values()} == {"sell"}

        async def judged() -> bool:
            sides = await pair.sides()
            return len(sides) == 2 and all(one["completed"] >= BARS // 8 for one in sides)

        await pair.site.eventually(judged, "outcomes of both")
        # In a thread: a reader that is not polled meanwhile loses its broker.
        await asyncio.to_thread(_look, Page(browser, pair.url))
