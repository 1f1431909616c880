"""An operator's word reaches every worker, holds through restarts, and nothing leaves against it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from deploy.local import LocalKafka, LocalRedis
from schemas import CancelReason, HaltState, Outcome, RunMode
from tests.integration.fusion import command
from tests.integration.fusion.engines import PacedSimulator, Reply, ScriptedEngine
from tests.integration.fusion.feed import SYMBOLS
from tests.integration.fusion.site import Site
from tests.integration.fusion.waiting import until
from tests.integration.fusion.worker import Worker

pytestmark = pytest.mark.integration

BUY = '{"action":"buy","conviction":60,"horizon":5,"entry":2,"stop":-12,"target":25,"rationale":"as told"}'


async def aquiline(site: Site, *arguments: str) -> tuple[int, str]:
    """Run the command with the site's settings; return its exit code and all that it said."""
    return await command.aquiline(*arguments, "--config", str(site.config()))


async def _buys(reply: Reply) -> None:
    await reply.send(BUY, "stop")


async def test_halting_one_symbol_or_all_reaches_every_worker_and_cancels_what_is_open(scripted: tuple[Site, ScriptedEngine]) -> None:
    site, engine = scripted
    engine.good = _buys  # type: ignore[method-assign]
    workers = [site.worker(f"worker-{number}", fusion={"entry_validity_ms": {"1m": 120_000}}).start() for number in range(2)]
    for worker in workers:
        await worker.ready()
    made = await site.feed()
    await site.logs.until(lambda: len(site.logs.ended) == len(made), "a signal of every symbol", told=site.tails)
    assert site.logs.outcomes() == {"published": len(made)}

    code, said = await aquiline(site, "halt", SYMBOLS[0], "--reason", "looks wrong", "--actor", "desk-2")
    assert code == 0, said
    assert f"{SYMBOLS[0]} is HALTED" in said
    await site.logs.until(lambda: len(site.logs.cancels) == 1, "the cancel of its open signal", told=site.tails)
    assert (site.logs.cancels[0].symbol, site.logs.cancels[0].reason) == (SYMBOLS[0], CancelReason.HALTED)

    code, said = await aquiline(site, "halt", "--reason", "all stop")
    assert code == 0, said
    await site.logs.until(lambda: len({one.signal_id for one in site.logs.cancels}) == len(made), "the cancels of all", told=site.tails)
    for worker in workers:

        async def halted(worker: Worker = worker) -> bool:
            return await worker.metric("aquiline_halted") == 1

        await until(halted, "every worker to be halted", told=site.tails)
    asked = engine.asked
    more = await site.feed()
    await site.logs.until(lambda: len(site.logs.ended) == len(made + more), "their outcomes", told=site.tails)
    assert site.logs.reasons() == {None: len(made), "halted": len(more)}
    assert engine.asked == asked, "what is halted is not asked"

    code, said = await aquiline(site, "resume", "--reason", "mended")
    assert code == 0, said
    for worker in workers:

        async def resumed(worker: Worker = worker) -> bool:
            return await worker.metric("aquiline_halted") == 0

        await until(resumed, "every worker to be resumed", told=site.tails)
    last = await site.feed()
    await site.logs.until(lambda: len(site.logs.ended) == len(made + more + last), "their outcomes", told=site.tails)
    assert site.logs.last_audit(SYMBOLS[0]).reason == "halted", "a symbol halted by name stays so"
    assert sum(audit.outcome is Outcome.PUBLISHED for audit in site.logs.ended.values()) == len(made) + len(last) - 1


async def test_a_symbol_that_no_topic_knows_is_halted_with_a_warning_and_a_bad_one_is_refused(site: Site) -> None:
    code, said = await aquiline(site, "halt", "TYPO.XNAS", "--reason", "x")
    assert code == 0
    assert "no record of TYPO.XNAS" in said
    code, said = await aquiline(site, "halt", "typo", "--reason", "x")
    assert code == 2
    assert "is not a symbol with its venue" in " ".join(said.split())


async def test_a_call_in_flight_when_everything_is_halted_publishes_nothing(scripted: tuple[Site, ScriptedEngine]) -> None:
    site, engine = scripted
    worker = await site.worker().start().ready()
    told = asyncio.Event()

    async def answers_when_told(reply: Reply) -> None:
        await told.wait()
        await _buys(reply)

    engine.scripts = [answers_when_told]
    await site.feed([SYMBOLS[0]])
    await until(lambda: engine.asked == 1, "the call", told=site.tails)
    offset = await site.say(HaltState.HALTED)

    async def halted() -> bool:
        return await worker.metric("aquiline_halted") == 1

    await until(halted, "the worker to be halted")
    told.set()
    await site.logs.until(lambda: len(site.logs.audits) == 1, "its outcome", told=site.tails)
    assert (site.logs.audits[0].outcome, site.logs.audits[0].reason) == (Outcome.BLOCKED, "halted")
    assert site.logs.signals == []
    assert site.logs.audits[0].control_offset == offset


async def test_a_halt_holds_through_a_restart_and_nothing_leaves_after_it(site: Site) -> None:
    worker = await site.worker(bus={"instance_id": "worker-0"}).start().ready()
    await site.feed()
    await site.logs.until(lambda: len(site.logs.ended) == len(SYMBOLS), "outcomes", told=site.tails)
    offset = await site.say(HaltState.HALTED)

    async def halted() -> bool:
        return await worker.metric("aquiline_halted") == 1

    await until(halted, "the worker to be halted", told=site.tails)
    worker.kill()
    await worker.start().ready()
    assert await halted()
    more = await site.feed(bars=2)
    await site.logs.until(lambda: len(site.logs.ended) == len(SYMBOLS) + len(more), "outcomes", told=site.tails)
    after = [audit for audit in site.logs.audits if audit.control_offset is not None and audit.control_offset >= offset]
    assert after
    assert {audit.outcome for audit in after} == {Outcome.BLOCKED}


async def test_live_starts_halted_until_the_first_resume(fusion_kafka: LocalKafka, redis_server: LocalRedis, tmp_path: Path) -> None:
    async with ScriptedEngine().serving() as engine:
        site = Site(tmp_path, fusion_kafka.url, redis_server.url, engine.url, RunMode.LIVE)
        await site.open()
        try:
            await site.worker().start().ready()
            made = await site.feed()
            await site.logs.until(lambda: len(site.logs.ended) == len(made), "outcomes", told=site.tails)
            assert site.logs.reasons() == {"halted": len(made)}
            assert engine.asked == 0
            code, said = await aquiline(site, "resume", "--reason", "go")
            assert code != 0, "resuming everything in live asks first"
            code, said = await aquiline(site, "resume", "--reason", "go", "--yes")
            assert code == 0, said
            worker = site.workers[0]

            async def resumed() -> bool:
                return await worker.metric("aquiline_halted") == 0

            await until(resumed, "the worker to be resumed", told=site.tails)
            more = await site.feed()
            await site.logs.until(lambda: len(site.logs.ended) == len(made + more), "outcomes", told=site.tails)
            assert site.logs.outcomes() == {"blocked": len(made), "published": len(more)}
        finally:
            await site.close()


async def test_live_refuses_the_simulator(
    fusion_kafka: LocalKafka, redis_server: LocalRedis, simulator: PacedSimulator, tmp_path: Path
) -> None:
    site = Site(tmp_path, fusion_kafka.url, redis_server.url, simulator.url, RunMode.LIVE)
    await site.open()
    try:
        worker = site.worker().start()
        assert await worker.ended() == 2
        assert "refuses the simulator" in worker.log
    finally:
        await site.close()
