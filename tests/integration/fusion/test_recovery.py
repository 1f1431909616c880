"""Starting, ending and starting again: drained on SIGTERM, taken over after a crash, refused where going on would be wrong."""

from __future__ import annotations

import re

import pytest

from schemas import CancelReason, Outcome, RunMode, Topic, topic_name
from services.core.bus import NewTopic, TopicPartition
from tests.integration.fusion.engines import Reply, ScriptedEngine
from tests.integration.fusion.feed import SYMBOLS, bar, split
from tests.integration.fusion.site import HISTORY_BARS, PARTITIONS, Site
from tests.integration.fusion.waiting import until

pytestmark = pytest.mark.integration

SYMBOL = SYMBOLS[0]
BUY = '{"action":"buy","conviction":60,"horizon":5,"entry":2,"stop":-12,"target":25,"rationale":"as told"}'


async def test_a_worker_killed_in_mid_call_asks_again_and_each_trigger_ends_once(scripted: tuple[Site, ScriptedEngine]) -> None:
    site, engine = scripted
    worker = await site.worker(bus={"instance_id": "worker-0"}).start().ready()
    answered: list[Reply] = []

    async def sends_and_hangs(reply: Reply) -> None:
        """Let the decision leave; the call, and so its outcome, does not end."""
        answered.append(reply)
        await reply.send(f"{BUY[:-2]} and on")
        await until(lambda: not worker.running, "the worker's death")

    engine.scripts = [sends_and_hangs, sends_and_hangs]
    made = await site.feed(SYMBOLS[:2])
    await site.logs.until(lambda: len(site.logs.signals) == 2, "both signals", told=site.tails)
    assert site.logs.audits == []
    worker.kill()
    await worker.start().ready()
    await site.logs.until(lambda: len(site.logs.ended) == len(made), "outcomes", told=site.tails)
    assert {audit.outcome for audit in site.logs.audits} == {Outcome.PUBLISHED}
    assert len(site.logs.signals) == 2, "what has left is not asked again"
    assert engine.asked == 2


async def test_sigterm_lets_calls_end_commits_and_leaves_nothing_to_do_again(scripted: tuple[Site, ScriptedEngine]) -> None:
    site, engine = scripted
    worker = await site.worker().start().ready()

    async def waits_for_the_end(reply: Reply) -> None:
        await until(lambda: "draining" in worker.log, "the draining")
        await reply.send(BUY, "stop")

    engine.scripts = [waits_for_the_end]
    await site.feed([SYMBOL])
    await until(lambda: engine.asked == 1, "the call", told=site.tails)
    worker.terminate()
    assert await worker.ended() == 0
    await site.logs.until(lambda: len(site.logs.audits) == 1, "its outcome", told=site.tails)
    assert site.logs.audits[0].outcome is Outcome.PUBLISHED

    await worker.start().ready()
    await site.feed([SYMBOLS[1]])
    await site.logs.until(lambda: len(site.logs.audits) >= 2, "the next outcome", told=site.tails)
    assert [audit.symbol for audit in site.logs.audits] == [SYMBOL, SYMBOLS[1]], "nothing was done twice"


async def test_what_does_not_end_within_the_drain_is_left_to_the_next_life(scripted: tuple[Site, ScriptedEngine]) -> None:
    site, engine = scripted
    worker = await site.worker(fusion={"drain_ms": 500}).start().ready()

    async def hangs(reply: Reply) -> None:
        del reply
        await until(lambda: not worker.running, "the worker's end")

    engine.scripts = [hangs]
    await site.feed([SYMBOL])
    await until(lambda: engine.asked == 1, "the call", told=site.tails)
    worker.terminate()
    assert await worker.ended() == 0
    await worker.start().ready()
    await site.logs.until(lambda: len(site.logs.audits) == 1, "its outcome, in the next life", told=site.tails)
    assert site.logs.audits[0].outcome is Outcome.PUBLISHED
    assert engine.asked == 2


async def test_records_gone_from_the_log_before_they_were_read_stop_the_worker_with_a_count(site: Site) -> None:
    worker = await site.worker().start().ready()
    await site.feed()
    await site.logs.until(lambda: len(site.logs.ended) == len(SYMBOLS), "outcomes", told=site.tails)
    worker.terminate()
    assert await worker.ended() == 0
    await site.feed(bars=3)
    admin = await site.bus.admin()
    await admin.truncate([topic_name(Topic.MARKET_FEATURES, RunMode.DEMO)])
    await admin.close()
    worker.start()
    assert await worker.ended() == 1
    assert "offsets are out of range and are never reset silently" in worker.log
    # Whichever partition is looked at first: three bars of each of its symbols.
    told = re.search(r"gone from the log: demo\.market-features\[(\d)\]: (\d+) records", worker.log)
    assert told is not None, worker.tail()
    partition, missing = map(int, told.groups())
    lost = [record for record in site.logs.records[Topic.MARKET_FEATURES] if record.partition == partition]
    assert missing == 3 * len({record.key for record in lost})


async def test_topics_with_different_partition_counts_are_refused_at_boot(site: Site) -> None:
    other = Site(site.folder, site.values["bus"]["url"], site.values["redis"]["url"], site.values["engine"]["urls"][0], RunMode.REPLAY)
    admin = await other.bus.admin()
    counts = {
        Topic.MARKET_FEATURES: PARTITIONS,
        Topic.VISION_FEATURES: 3,
        Topic.STRATEGY_SIGNALS: PARTITIONS,
        Topic.SIGNAL_AUDIT: PARTITIONS,
    }
    await admin.create([NewTopic(topic_name(topic, RunMode.REPLAY), count, {}) for topic, count in counts.items()])
    await admin.close()
    worker = other.worker("other").start()
    try:
        assert await worker.ended() == 1
        assert "must have one partition count" in worker.log
        assert "replay.vision-features: 3" in worker.log
    finally:
        worker.kill()


async def test_a_restart_remembers_what_is_open_and_cancels_it_when_a_bar_is_revised(scripted: tuple[Site, ScriptedEngine]) -> None:
    site, engine = scripted

    async def buys(reply: Reply) -> None:
        await reply.send(BUY, "stop")

    engine.good = buys  # type: ignore[method-assign]
    worker = await site.worker(bus={"instance_id": "worker-0"}, fusion={"entry_validity_ms": {"1m": 120_000}}).start().ready()
    await site.feed([SYMBOL])
    await site.logs.until(lambda: len(site.logs.audits) == 1, "its outcome", told=site.tails)
    worker.kill()
    await worker.start().ready()
    await site.publish(Topic.MARKET_FEATURES, [bar(SYMBOL, HISTORY_BARS - 1, revision=1)])
    await site.logs.until(lambda: len(site.logs.cancels) == 1, "the cancel", told=site.tails)
    assert site.logs.cancels[0].reason is CancelReason.REVISED
    assert site.logs.cancels[0].signal_id == site.logs.signals[0].signal_id


async def test_a_split_cancels_what_is_open(scripted: tuple[Site, ScriptedEngine]) -> None:
    site, engine = scripted

    async def buys(reply: Reply) -> None:
        await reply.send(BUY, "stop")

    engine.good = buys  # type: ignore[method-assign]
    await site.worker(fusion={"entry_validity_ms": {"1m": 120_000}}).start().ready()
    made = await site.feed([SYMBOL])
    await site.logs.until(lambda: len(site.logs.audits) == 1, "its outcome", told=site.tails)
    await site.publish(Topic.INSTRUMENT_EVENTS, [split(SYMBOL, 2.0, made[0].ts_open_ms)])
    await site.logs.until(lambda: len(site.logs.cancels) == 1, "the cancel", told=site.tails)
    assert site.logs.cancels[0].reason is CancelReason.SPLIT


async def test_both_topics_of_a_symbol_are_read_by_one_worker(site: Site) -> None:
    workers = [site.worker(f"worker-{number}").start() for number in range(2)]
    for worker in workers:
        await worker.ready()
    made = await site.feed()
    await site.logs.until(lambda: len(site.logs.ended) == len(made), "outcomes", told=site.tails)
    shares = [await worker.metric("aquiline_outcomes_total") for worker in workers]
    assert sum(shares) == len(made)
    assert all(shares), "both have their part"
    for signal in site.logs.signals:
        assert signal.as_of.vision is not None
        assert signal.as_of.vision.partition == signal.as_of.market.partition
    assert site.first[TopicPartition("demo.vision-features", 0)] > 0


async def test_a_worker_keeps_the_books_of_the_partitions_that_it_has_before_and_after_another_leaves(site: Site) -> None:
    stays, leaves = (site.worker(f"worker-{number}").start() for number in range(2))
    for worker in (stays, leaves):
        await worker.ready()
    made = await site.feed()
    await site.logs.until(lambda: len(site.logs.ended) == len(made), "outcomes", told=site.tails)
    before = len(site.logs.audits)
    # Retention takes away what was folded: a book that is built anew has too few bars to be asked about.
    admin = await site.bus.admin()
    await admin.truncate([topic_name(topic, RunMode.DEMO) for topic in (Topic.MARKET_FEATURES, Topic.VISION_FEATURES)])
    await admin.close()
    leaves.terminate()
    assert await leaves.ended() == 0
    made = await site.feed()
    await site.logs.until(lambda: len(site.logs.audits) == before + len(made), "outcomes of all partitions", told=site.tails)
    after = site.logs.audits[before:]
    kept = {audit.trigger.partition for audit in after if audit.outcome is Outcome.PUBLISHED}
    rebuilt = {audit.trigger.partition for audit in after if audit.reason == "min_bars"}
    assert len(kept) == len(rebuilt) == PARTITIONS // 2
    assert kept | rebuilt == set(range(PARTITIONS))
