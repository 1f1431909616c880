"""The group grows from two workers to three and shrinks again while bars keep coming: politely, and by a crash."""

from __future__ import annotations

import pytest

from tests.chaos.load import Load
from tests.integration.fusion.site import Site
from tests.integration.fusion.waiting import until

pytestmark = [pytest.mark.integration, pytest.mark.chaos, pytest.mark.timeout(0)]


async def test_two_workers_become_three_and_two_again_while_producing(site: Site, rounds: int) -> None:
    pair = [site.worker(f"worker-{number}").start() for number in range(2)]
    for worker in pair:
        await worker.ready()
    third = site.worker("worker-2")
    load = Load(site)
    for number in range(2 * rounds):
        await load.more(30, "of two workers")
        third.start()

        async def has_its_part() -> bool:
            await load.step()
            assert third.running, third.tail()
            return await third.metric("aquiline_outcomes_total") > 0

        await until(has_its_part, "the third worker to have its part", told=site.tails)
        await load.more(30, "of three workers")
        if number % 2:
            third.kill()
        else:
            third.terminate()
            await load.until(lambda: not third.running, "the third worker to leave")
            assert third.returncode == 0, third.tail()
        await load.more(30, "of two workers again")
    assert all(worker.running for worker in pair), site.tails()
    await load.judged(f"two workers to three and back {2 * rounds} times, every other time by a crash")
