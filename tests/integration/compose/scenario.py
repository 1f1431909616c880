"""What every stack has to do, whatever it stands on: start, decide, drain; judged from its topics alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial

from schemas import RunMode, Topic, topic_name
from services.core.bus import Bus, TopicPartition
from services.core.bus.connect import connect
from services.core.bus.kafka_cluster import read_cluster_state
from services.core.clock import SystemClock
from services.core.instruments import Instruments
from services.core.redis import connect as connect_redis
from services.core.settings import Settings
from services.core.topic_admin import kept_for, wanted_topics
from services.feeds.samples import SYMBOLS
from tests.chaos.invariants import judge
from tests.integration.compose.stack import Stack
from tests.integration.fusion.logs import Logs
from tests.integration.fusion.waiting import until

MODE = RunMode.DEMO
PARTITIONS = 4
INPUTS = (Topic.MARKET_FEATURES, Topic.VISION_FEATURES)
PATIENCE_S = 240.0
LISTED = set(SYMBOLS.values()) - {"FB.XNAS"}
"""Facebook is listed six years into the replay."""
INPUT_DAYS = 600
_SERVICES = {"console", "feed", "fusion", "market", "scoring", "simulator", "vision"}


async def start_decide_drain(stack: Stack, meanwhile: Callable[[], None] = lambda: None) -> None:
    """Start all of `stack`, wait for signals of every stock and for outcomes, and end it by SIGTERM.

    `meanwhile` is called in a thread while everything runs. Raises AssertionError when a promise is broken.
    """
    await stack.start("fusion")
    settings = stack.settings("fusion")
    clock = SystemClock()
    bus = connect(settings.bus, clock, settings.topics)
    first = await _ends(bus, *INPUTS)
    assert sum(first.values()) > 0, "the history is read before the worker starts"
    logs = Logs(bus, MODE, PARTITIONS)
    await logs.open()
    assert logs.audits == [], "nobody is asked about the past"

    await stack.start()
    _declared_order(stack)
    await logs.until(
        lambda: {signal.symbol for signal in logs.signals} >= LISTED and any(signal.vision == "fresh" for signal in logs.signals),
        "a signal of every stock, and one on fresh vision features",
        patience_s=PATIENCE_S,
        told=stack.tails,
    )
    await until(partial(_judged, bus), "signals judged by what came after them", patience_s=PATIENCE_S, told=stack.tails)
    await _redis_is_used(stack, settings)
    await asyncio.to_thread(meanwhile)
    codes = await stack.stop()
    assert codes == dict.fromkeys(_SERVICES, 0), stack.tails()

    await _as_declared(bus)
    # The worker is stopped before those that it reads from, so that their last bars are for its next life. Up to its commits
    # everything has an outcome, and beyond them nothing has.
    ends = sum((await _ends(bus, *INPUTS, Topic.SIGNAL_AUDIT, Topic.STRATEGY_SIGNALS)).values())
    await logs.until(
        lambda: sum(len(logs.records[topic]) for topic in INPUTS) + len(logs.audits) + len(logs.messages) == ends, "all that there is"
    )
    committed = (await read_cluster_state(settings.bus, settings.fusion_group)).committed
    for topic in INPUTS:
        logs.records[topic] = [one for one in logs.records[topic] if one.offset < committed[TopicPartition(one.topic, one.partition)]]
    known = Instruments(bus, clock, MODE, "judge")
    await known.start()
    verdict = judge(logs, settings, known, first)
    assert verdict.broken == [], verdict.broken
    assert verdict.counts["triggers"] >= len(logs.signals) > 0
    assert logs.dead_letters == []
    await known.close()
    await logs.close()
    await bus.close()


def _declared_order(stack: Stack) -> None:
    for name in stack.started:
        for other in stack.declared[name].get("depends_on", {}):
            if other in stack.declared:
                assert stack.started.index(other) < stack.started.index(name), f"{name} waits for {other}"


async def _redis_is_used(stack: Stack, settings: Settings) -> None:
    """Return once the worker has written there: it goes on without a Redis that refuses it, and nobody would notice."""
    client = connect_redis(settings.redis.model_copy(update={"budget_ms": 5_000}))
    assert client is not None

    async def holds_prefixes() -> bool:
        return bool((await client.scan(match=f"{settings.redis.namespace}:*", count=100))[1])

    await until(holds_prefixes, "prefixes in Redis", told=stack.tails)
    await client.aclose()


async def _judged(bus: Bus) -> bool:
    return sum((await _ends(bus, Topic.SIGNAL_OUTCOMES)).values()) >= len(LISTED)


async def _ends(bus: Bus, *topics: Topic) -> Mapping[TopicPartition, int]:
    reader = await bus.reader(client_id="ends")
    try:
        return await reader.end_offsets(
            [TopicPartition(topic_name(topic, MODE), number) for topic in topics for number in range(PARTITIONS)]
        )
    finally:
        await reader.close()


async def _as_declared(bus: Bus) -> None:
    """Every topic has the partitions, the retention and the compaction that the job is there for."""
    admin = await bus.admin()
    wanted = wanted_topics(MODE, PARTITIONS, overrides=kept_for(INPUTS, INPUT_DAYS))
    found = await admin.describe([topic.name for topic in wanted])
    await admin.close()
    assert {topic.name: topic.partitions for topic in wanted} == {name: info.partitions for name, info in found.items()}
    for topic in wanted:
        assert topic.config.items() <= found[topic.name].config.items()
