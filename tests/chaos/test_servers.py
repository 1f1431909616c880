"""Redis, the broker and the engine go away, hang and come back under load."""

from __future__ import annotations

import random
from statistics import median

import pytest

from deploy.local import LocalKafka, LocalRedis
from tests.chaos.load import Load
from tests.integration.fusion.engines import PacedSimulator
from tests.integration.fusion.site import Site

pytestmark = [pytest.mark.integration, pytest.mark.chaos, pytest.mark.timeout(0)]

# The engine may go down for longer than its reserve; what counts is that nothing of it becomes a view.
_DOWN = {"engine_unreachable", "engine_broke", "engine_open", "engine_timeout"}


def _prompt_ms(site: Site, since: int) -> list[float]:
    return [audit.latency_ms["prompt"] for audit in site.logs.audits[since:] if "prompt" in audit.latency_ms]


async def test_losing_redis_costs_time_within_its_budget_and_nothing_else(site: Site, chaos_redis: LocalRedis, rounds: int) -> None:
    """Each prompt is looked up in Redis here, since the cache in the process holds nothing."""
    worker = await site.worker(redis={"local_bytes": 1, "breaker_open_ms": 50}).start().ready()
    load = Load(site)
    added = []
    try:
        for _ in range(rounds):
            for lose, regain in ((chaos_redis.kill, chaos_redis.start), (chaos_redis.freeze, chaos_redis.thaw)):
                since = len(site.logs.audits)
                await load.more(40, "with Redis")
                healthy = median(_prompt_ms(site, since))
                failures = await worker.metric("aquiline_redis_failures_total")
                lose()
                since = len(site.logs.audits)
                await load.more(60, "without Redis")
                added.append(median(_prompt_ms(site, since)) - healthy)
                assert await worker.metric("aquiline_redis_failures_total") > failures, "it was missed"
                regain()
    finally:
        chaos_redis.thaw() if chaos_redis.pid is not None else chaos_redis.start()
    await load.more(40, "with Redis again")
    verdict = await load.judged(f"Redis killed {rounds} times and frozen {rounds} times, adding {max(added):.1f} ms to a median decision")
    assert max(added) <= site.settings().redis.budget_ms
    assert set(verdict.outcomes) <= {"published", "conflated"}, "losing Redis fails nothing"


async def test_a_broker_that_is_killed_and_comes_back_finds_everything_in_order(
    site: Site, chaos_kafka: LocalKafka, rounds: int, draw: random.Random
) -> None:
    worker = await site.worker().start().ready()
    load = Load(site)
    for _ in range(rounds):
        await load.more(draw.randint(5, 75), "before the broker is killed")

        def kill_and_start() -> None:
            chaos_kafka.kill()
            chaos_kafka.start()

        await load.during(kill_and_start, "the broker to be back")
        published = site.logs.outcomes()["published"]
        await load.until(lambda published=published: site.logs.outcomes()["published"] >= published + 10, "signals again")  # type: ignore[misc]
        assert worker.running, worker.tail()
    await load.judged(f"broker killed {rounds} times")


async def test_an_engine_that_is_killed_hangs_or_is_slow_never_becomes_a_view(
    site: Site, engine: PacedSimulator, rounds: int, draw: random.Random
) -> None:
    worker = await site.worker(fusion={"entry_validity_ms": {"1m": 2_500}, "max_staleness_ms": 2_500}).start().ready()
    load = Load(site)

    def slow_down(time_scale: float) -> None:
        engine.kill()
        engine.time_scale = time_scale
        engine.start()

    for _ in range(rounds):
        await load.more(draw.randint(5, 55), "with the engine")
        for lose, regain in (
            (engine.kill, engine.start),
            (engine.freeze, engine.thaw),
            (lambda: slow_down(50.0), lambda: slow_down(0.1)),
        ):
            await load.during(lose, "the engine to go")
            ended = {audit.trigger_id for audit in site.logs.audits}
            await load.until(
                lambda ended=ended: any(one.reason in _DOWN for one in site.logs.audits if one.trigger_id not in ended),  # type: ignore[misc]
                "calls that fail",
            )
            await load.during(regain, "the engine to be back")
            published = site.logs.outcomes()["published"]
            await load.until(lambda published=published: site.logs.outcomes()["published"] >= published + 5, "signals again")  # type: ignore[misc]
    assert worker.running, worker.tail()
    verdict = await load.judged(f"engine killed, hung and slow {rounds} times each")
    assert verdict.outcomes["failed"] > 0
