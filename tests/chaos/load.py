"""Load that follows what comes of it: bars are published as outcomes arrive, so that nothing is paced by time."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from typing import Final

from schemas import MarketFeatures, Topic, VisionFeatures
from services.core.bus import BusError
from tests.chaos.invariants import Verdict, judge
from tests.integration.fusion.feed import SYMBOLS, bar, window
from tests.integration.fusion.site import Site
from tests.integration.fusion.waiting import until
from tests.stored import store

SEED: Final = int(os.environ.get("CHAOS_SEED", "0"))


class Load:
    """Publishes bars, every third with vision features, with at most `ahead` bars without an outcome."""

    def __init__(self, site: Site, symbols: Sequence[str] = SYMBOLS, ahead: int = 24) -> None:
        """Publish on `site`."""
        self._site = site
        self._symbols = symbols
        self._ahead = ahead
        self._turn = 0
        self.published = 0

    async def until(self, holds: Callable[[], bool], what: str) -> None:
        """Keep the load up until `holds`, looking at the topics all the while."""

        async def step() -> bool:
            await self.step()
            return holds()

        await until(step, what, told=lambda: self._site.logs.summary() + "\n" + self._site.tails())

    async def more(self, outcomes: int, what: str) -> None:
        """Keep the load up until `outcomes` more triggers have ended."""
        goal = len(self._site.logs.ended) + outcomes
        await self.until(lambda: len(self._site.logs.ended) >= goal, f"{outcomes} more outcomes {what}")

    async def during(self, work: Callable[[], object], what: str) -> None:
        """Keep the load up while `work` blocks a thread."""
        task = asyncio.create_task(asyncio.to_thread(work))
        await self.until(task.done, what)
        await task

    async def judged(self, what: str) -> Verdict:
        """Publish no more, wait for every outcome, and return what the topics say; raise AssertionError for a broken promise."""
        await self.settled()
        site = self._site
        verdict = judge(site.logs, site.settings(), await site.instruments(), site.first)
        sys.stdout.write(f"\nchaos: {what}: {verdict}\n")
        counts, outcomes = dict(verdict.counts), dict(verdict.outcomes)
        store("chaos", what, {"seed": SEED, "counts": counts, "outcomes": outcomes, "broken": len(verdict.broken)})
        assert verdict.broken == [], "\n".join(verdict.broken)
        return verdict

    async def step(self) -> None:
        """Publish what may be published now, and look at what has come."""
        await self._site.logs.look()
        while self.published - len(self._site.logs.ended) < self._ahead:
            await self.publish()

    async def publish(self) -> None:
        """Publish the next bar, of the next symbol in turn."""
        symbol = self._symbols[self._turn % len(self._symbols)]
        self._turn += 1
        number = self._site.numbers.take(symbol)
        await self._until_taken(Topic.MARKET_FEATURES, bar(symbol, number, self._site.run_mode))
        self.published += 1
        if number % 3 == 0:
            await self._until_taken(Topic.VISION_FEATURES, window(symbol, number, self._site.run_mode))

    async def settled(self) -> None:
        """Publish no more, and return once every bar has an outcome."""
        logs = self._site.logs
        await logs.until(
            lambda: len(logs.ended) >= self.published,
            f"outcomes of all {self.published} bars",
            told=lambda: logs.summary() + "\n" + self._site.tails(),
        )
        await logs.to_the_end()

    async def _until_taken(self, topic: Topic, message: MarketFeatures | VisionFeatures) -> None:
        """Publish as a real feed does, again and again through an outage; a bar that arrives twice is a duplicate and no trigger."""
        while True:
            try:
                await self._site.publish(topic, [message])
            except BusError:
                continue
            return
