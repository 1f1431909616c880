"""A candidate in shadow beside live on one cluster: neither takes the other's records, and it is compared, promoted and rolled back."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from deploy.local import LocalKafka, LocalRedis
from schemas import Action, AuditRecord, CancelReason, HaltState, MarketFeatures, Outcome, RunMode
from services.core.settings import load
from services.fusion.prompt.version import version_of
from services.strategy.folder import INSTRUCTIONS, TOML
from services.strategy.folder import new as new_strategy
from services.strategy.model import STRATEGY_SETTINGS
from tests.integration.fusion.command import aquiline
from tests.integration.fusion.engines import Reply, ScriptedEngine
from tests.integration.fusion.feed import SYMBOLS
from tests.integration.fusion.logs import Logs
from tests.integration.fusion.site import PARTITIONS, Site, empty_topics
from tests.integration.fusion.waiting import until
from tests.integration.fusion.worker import Worker

pytestmark = pytest.mark.integration

SELL = '{"action":"sell","conviction":60,"horizon":5,"entry":-2,"stop":12,"target":-25,"rationale":"as told"}'
BUY = '{"action":"buy","conviction":60,"horizon":5,"entry":2,"stop":-12,"target":25,"rationale":"as told"}'
HALTED = SYMBOLS[0]
GOING = len(SYMBOLS) - 1
CLOSE_LOOK = ("--min-pairs", "5", "--min-minutes", "0", "--max-slower", "1000", "--max-lost", "1")
"""A few bars on a busy machine are held to less than a day is."""


PATIENT = {"max_staleness_ms": 600_000, "entry_validity_ms": {"1m": 600_000}}
"""Signals are still open when a worker has restarted on a busy machine."""


async def _buys(reply: Reply) -> None:
    await reply.send(BUY, "stop")


async def _sells(reply: Reply) -> None:
    await reply.send(SELL, "stop")


async def test_a_candidate_runs_beside_live_and_is_compared_promoted_and_rolled_back(
    fusion_kafka: LocalKafka, redis_server: LocalRedis, tmp_path: Path
) -> None:
    async with ScriptedEngine().serving() as old, ScriptedEngine().serving() as new:
        old.good = _buys  # type: ignore[method-assign]
        site = Site(tmp_path, fusion_kafka.url, redis_server.url, old.url, RunMode.LIVE)
        await site.open()
        await empty_topics(site.bus, RunMode.SHADOW, but=RunMode.LIVE)
        theirs = Logs(site.bus, RunMode.SHADOW, PARTITIONS)
        await theirs.open()
        try:
            live = site.worker("live")
            # The same group in the settings: the run mode keeps them apart.
            shadow = Worker(
                tmp_path, "candidate", {**site.merged(engine={"urls": [new.url]}, fusion={"window_bars": 48}), "run_mode": "shadow"}
            )
            site.workers.append(shadow)
            for worker in (live, shadow):
                await worker.start().ready()
            await site.say(HaltState.HALTED, HALTED)
            await site.say(HaltState.ACTIVE)
            await _halts(live, global_=False)

            for _ in range(3):
                await _fed(site, theirs)
            assert site.logs.reasons()["halted"] == 3
            assert theirs.reasons()["halted"] == 0, "a word to live is none to the shadow"
            assert site.logs.ended.keys() == theirs.ended.keys(), "each decided on every record"

            files = ("--live", str(live.config), "--shadow", str(shadow.config), "--since", "1h", *CLOSE_LOOK)
            comparison = tmp_path / "comparison.json"
            promotion = ("promote", "--live", str(live.config), "--candidate", str(shadow.config), "--comparison", str(comparison))
            status, said = await aquiline("shadow", "compare", *files, "--out", str(comparison))
            unscored = "outcomes, matured pairs, scored among them, returns."
            assert (status, f"May not be promoted: {unscored}" in " ".join(said.split())) == (1, True), said
            found = orjson.loads(comparison.read_bytes())
            decided = site.logs.outcomes()["published"]
            assert (found["coverage"], found["decided"], found["agreement"]) == (1.0, decided, 0.0)
            assert found["actions"]["buy"] == {"hold": decided}
            assert sum(found["actions"]["blocked"].values()) == 3

            before = live.config.read_text()
            status, said = await aquiline(*promotion, "--reason", "a test")
            assert (status, "outcomes is not on both sides" in said) == (1, True), "no scorer runs here, and live needs outcomes"
            status, said = await aquiline(*promotion, "--reason", "a test", "--override", "no scorer here")
            assert status == 0, said
            assert load(live.config).fusion.window_bars == 48
            await _restarted(live)
            assert await _next_actions(site) == {"hold": GOING, "halted": 1}, "the candidate decides, and the halt holds"

            status, said = await aquiline("rollback", "--live", str(live.config), "--reason", "a test")
            assert status == 0, said
            assert live.config.read_text() == before
            await _restarted(live)
            assert await _next_actions(site) == {"buy": GOING, "halted": 1}
        finally:
            await theirs.close()
            await site.close()


async def test_a_strategy_of_ones_own_runs_beside_live_and_takes_its_place_without_a_signal_doubled_or_left_standing(
    fusion_kafka: LocalKafka, redis_server: LocalRedis, tmp_path: Path
) -> None:
    async with _beside_live(tmp_path, fusion_kafka, redis_server) as desk:
        site, live = desk.site, desk.live
        own = version_of(load(desk.shadow.config).fusion.strategy)
        assert own.startswith("momentum-")
        assert {audit.prompt_version for audit in desk.theirs.ended.values()} == {own}

        await desk.promote()
        (tmp_path / "momentum" / INSTRUCTIONS).write_text("Sell everything.")
        assert await _next_actions(site) == {"buy": len(SYMBOLS)}, "a worker that runs keeps the strategy that it started with"
        live.terminate()
        assert await live.ended() == 0, live.tail()
        bought = {signal.signal_id for signal in site.logs.signals}
        since = await desk.decided_after_start(await site.feed(bars=2))
        published = [audit for audit in since if audit.outcome is Outcome.PUBLISHED]
        assert {audit.outcome for audit in since} <= {Outcome.PUBLISHED, Outcome.CONFLATED}
        assert {audit.prompt_version for audit in published} == {own}, "as it was compared and promoted"
        assert {audit.symbol for audit in published} == set(SYMBOLS)
        assert {one.action for one in site.logs.signals if one.signal_id not in bought} == {Action.SELL}
        withdrawn = {cancel.signal_id: cancel.reason for cancel in site.logs.cancels}
        assert {withdrawn.get(signal_id) for signal_id in bought} == {CancelReason.SUPERSEDED}, "no signal of the old one stands"
        _assert_one_signal_a_trigger(site)

        decided = {signal.signal_id for signal in site.logs.signals}
        made = await site.feed()
        live.kill()
        status, said = await aquiline("rollback", "--live", str(live.config), "--reason", "a test")
        assert status == 0, said
        await desk.decided_after_start([*made, *await site.feed()])
        newest = {one.symbol: one.action for one in site.logs.signals if one.signal_id not in decided}
        assert newest == dict.fromkeys(SYMBOLS, Action.BUY), "the old strategy decides again, also on what the crash left undecided"
        _assert_one_signal_a_trigger(site)


@dataclass
class Desk:
    """A live worker that buys, with a shadow worker that sells by the strategy `momentum` beside it; both have decided."""

    site: Site
    theirs: Logs
    live: Worker
    shadow: Worker

    async def promote(self) -> None:
        """Compare, and promote against the comparison: no scorer runs here."""
        comparison = self.site.folder / "comparison.json"
        sides = ("--live", str(self.live.config), "--shadow", str(self.shadow.config), "--since", "1h", *CLOSE_LOOK)
        status, said = await aquiline("shadow", "compare", *sides, "--out", str(comparison))
        assert status == 1, said
        given = ("--live", str(self.live.config), "--candidate", str(self.shadow.config), "--comparison", str(comparison))
        status, said = await aquiline("promote", *given, "--reason", "a test", "--override", "no scorer here")
        assert status == 0, said

    async def decided_after_start(self, made: Sequence[MarketFeatures]) -> list[AuditRecord]:
        """Start live, and return the outcomes of `made`, which nobody had seen the end of."""
        logs, due = self.site.logs, {(bar.symbol, bar.ts_close_ms) for bar in made}

        def ended() -> dict[tuple[str, int], AuditRecord]:
            return {(one.symbol, one.trigger.ts_event_ms): one for one in logs.ended.values()}

        await self.live.start().ready()
        await logs.until(lambda: due <= ended().keys(), "an outcome of each bar", told=self.site.tails)
        await logs.to_the_end()
        return [one for key, one in ended().items() if key in due]


@asynccontextmanager
async def _beside_live(folder: Path, kafka: LocalKafka, redis: LocalRedis) -> AsyncIterator[Desk]:
    async with AsyncExitStack() as stack:
        old, new = [await stack.enter_async_context(ScriptedEngine().serving()) for _ in range(2)]
        old.good, new.good = _buys, _sells  # type: ignore[method-assign]
        site = Site(folder, kafka.url, redis.url, old.url, RunMode.LIVE)
        await site.open()
        stack.push_async_callback(site.close)
        await empty_topics(site.bus, RunMode.SHADOW, but=RunMode.LIVE)
        theirs = Logs(site.bus, RunMode.SHADOW, PARTITIONS)
        await theirs.open()
        stack.push_async_callback(theirs.close)
        live, shadow = site.worker("live", fusion=PATIENT), Worker(folder, "candidate", _candidate(site, new.url))
        site.workers.append(shadow)
        for worker in (live, shadow):
            await worker.start().ready()
        await site.say(HaltState.ACTIVE)
        await _halts(live, global_=False)
        for _ in range(2):
            await _fed(site, theirs)
        yield Desk(site, theirs, live, shadow)


def _assert_one_signal_a_trigger(site: Site) -> None:
    pairs = {(signal.trigger_id, signal.signal_id) for signal in site.logs.signals}
    assert len(pairs) == len({trigger_id for trigger_id, _ in pairs}) == len({signal_id for _, signal_id in pairs})
    assert len({(one.symbol, one.as_of.market.offset) for one in site.logs.signals}) == len(pairs), "no bar is acted on twice"


def _candidate(site: Site, engine_url: str) -> dict[str, Any]:
    """Make the strategy `momentum`, and return the settings of live with it in place of what a strategy sets."""
    folder = site.folder / "momentum"
    new_strategy(folder, folder.name)
    file = folder / TOML
    text = re.sub(r"(?ms)^\[intervals\]\n.*?\n\n", "[intervals]\n1m = 48\n\n", file.read_text())
    for before, after in (("epoch_slots = 64", "epoch_slots = 32"), ("min_bars = 20", "min_bars = 5"), ("_limit = 3", "_limit = 0")):
        assert before in text
        text = text.replace(before, after)
    file.write_text(text)
    values = site.merged(engine={"urls": [engine_url]}, fusion=PATIENT)
    others = {name: value for name, value in values["fusion"].items() if name not in STRATEGY_SETTINGS and name != "epoch_slots"}
    return {**values, "run_mode": "shadow", "fusion": {**others, "strategy": folder.name}}


async def _fed(site: Site, theirs: Logs) -> None:
    """Feed one bar a symbol, and return when both sides have ended its trigger: more at once would be conflated by the slower."""
    due = len(site.logs.ended) + len(await site.feed())
    await site.logs.until(lambda: len(site.logs.ended) == due, "live's outcomes", told=site.tails)
    await theirs.until(lambda: len(theirs.ended) == due, "the shadow's outcomes", told=site.tails)


async def _restarted(worker: Worker) -> None:
    worker.terminate()
    assert await worker.ended() == 0, worker.tail()
    await worker.start().ready()


async def _halts(worker: Worker, *, global_: bool) -> None:
    async def said() -> bool:
        return await worker.metric("aquiline_halted") == global_

    await until(said, "the operator's word to be heard", told=worker.tail)


async def _next_actions(site: Site) -> dict[str, int]:
    """Feed one bar a symbol, and return how often live did what."""
    before = set(site.logs.ended)
    made = await site.feed()
    await site.logs.until(lambda: len(site.logs.ended) == len(before) + len(made), "outcomes", told=site.tails)
    ends = [audit for trigger_id, audit in site.logs.ended.items() if trigger_id not in before]
    what = [audit.action.value if audit.action is not None else str(audit.reason) for audit in ends]
    return {one: what.count(one) for one in set(what)}
