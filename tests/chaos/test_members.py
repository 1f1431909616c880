"""The group grows from two workers to three and shrinks again while bars keep coming: politely, and by a crash."""

from __future__ import annotations

import random

import pytest

from tests.chaos.load import Load
from tests.integration.fusion.site import Site
from tests.integration.fusion.waiting import until

pytestmark = [pytest.mark.integration, pytest.mark.chaos, pytest.mark.timeout(0)]


async def test_two_workers_become_three_and_two_again_while_producing(site: Site, rounds: int, draw: random.Random) -> None:
    pair = [site.worker(f"worker-{number}").start() for number in range(2)]
    for worker in pair:
        await worker.ready()
    third = site.worker("worker-2")
    load = Load(site)
    for number in range(2 * rounds):
        await load.more(draw.randint(5, 55), "of two workers")
        third.start()

        async def has_its_part() -> bool:
            await load.step()
            assert third.running, third.tail()
            return await third.metric("aquiline_outcomes_total") > 0

        await until(has_its_part, "the third worker to have its part", told=site.tails)
        await load.more(draw.randint(5, 55), "of three workers")
        if number % 2:
            third.kill()
        else:
            third.terminate()
            await load.until(lambda: not third.running, "the third worker to leave")
            assert third.returncode == 0, third.tail()
        await load.more(30, "of two workers again")
    assert all(worker.running for worker in pair), site.tails()
    await load.judged(f"two workers to three and back {2 * rounds} times, every other time by a crash")


async def test_a_worker_that_stood_still_publishes_nothing_when_it_wakes_up(site: Site, rounds: int) -> None:
    """Others own its partitions by then, and have gone on: what it had begun would set lanes back."""
    frozen, other = (site.worker(f"worker-{number}").start() for number in range(2))
    for worker in (frozen, other):
        await worker.ready()
    load = Load(site)
    for _ in range(rounds):
        await load.more(30, "of two workers")
        frozen.freeze()
        # More than what can wait for the frozen one: the other has taken over and goes on.
        await load.more(60, "of the other worker")
        frozen.thaw()
        assert await frozen.ended() == 1
        assert "publishes nothing more" in frozen.log
        await frozen.start().ready()
    await load.judged(f"worker frozen {rounds} times")
