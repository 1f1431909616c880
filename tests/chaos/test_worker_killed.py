"""The worker is killed in the middle of its calls, again and again, and starts again."""

from __future__ import annotations

import random

import pytest

from tests.chaos.load import Load
from tests.integration.fusion.engines import PacedSimulator
from tests.integration.fusion.site import Site
from tests.integration.fusion.waiting import until

pytestmark = [pytest.mark.integration, pytest.mark.chaos, pytest.mark.timeout(0)]


async def test_a_worker_killed_in_mid_call_loses_and_doubles_nothing(
    site: Site, engine: PacedSimulator, rounds: int, draw: random.Random
) -> None:
    """A static member: its next life takes its partitions over at once."""
    worker = site.worker(bus={"instance_id": "worker-0"})
    await worker.start().ready()
    load = Load(site)
    kills = 0
    for _ in range(2 * rounds):
        await load.more(draw.randint(5, 55), "under load")
        await engine.hang()
        goal = len(site.logs.ended) + draw.randint(5, 35)

        async def in_call(goal: int = goal) -> bool:
            """Return whether calls are in flight, and others have ended (`conflated`) behind them."""
            await load.step()
            return len(site.logs.ended) >= goal and await engine.calls() > 0

        await until(in_call, "calls in flight", told=site.tails)
        worker.kill()
        # A life in which nothing that was begun can end: what its commits say has to hold for the next.
        await worker.start().ready()
        await until(in_call, "calls in flight again", told=site.tails)
        worker.kill()
        kills += 2
        await engine.go_on()
        await worker.start().ready()
    verdict = await load.judged(f"worker killed in mid-call {kills} times")
    assert verdict.outcomes["published"] > 0
