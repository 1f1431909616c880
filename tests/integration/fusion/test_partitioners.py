"""Inputs from producers that hash keys in their own way: outcomes, signals and recovery follow the partitions that records came on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka.partitioner import DefaultPartitioner

from deploy.local import LocalKafka, LocalRedis
from schemas import DeadLetterReason, MarketFeatures, Topic
from services.core.bus import BusError
from tests.chaos.load import Load
from tests.integration.fusion.engines import PacedSimulator
from tests.integration.fusion.feed import SYMBOLS
from tests.integration.fusion.librdkafka import LibrdkafkaProducer
from tests.integration.fusion.site import PARTITIONS, Site

pytestmark = pytest.mark.integration


@pytest.fixture
async def librdkafka_site(
    fusion_kafka: LocalKafka, redis_server: LocalRedis, simulator: PacedSimulator, tmp_path: Path
) -> AsyncIterator[Site]:
    site = Site(tmp_path, fusion_kafka.url, redis_server.url, simulator.url)
    await site.open(producer=LibrdkafkaProducer(fusion_kafka.url))
    yield site
    await site.close()


def _by_murmur2(symbol: str) -> int:
    partition: int = DefaultPartitioner()(symbol.encode(), list(range(PARTITIONS)), [])
    return partition


async def test_a_feed_of_librdkafka_keeps_every_promise_through_kill_9_and_recovery(librdkafka_site: Site) -> None:
    site = librdkafka_site
    load = Load(site)
    worker = await site.worker(bus={"instance_id": "worker-0"}).start().ready()
    for _ in range(3):
        await load.more(20, "before a kill")
        worker.kill()
        await worker.start().ready()
    verdict = await load.judged("librdkafka's partitioner, three kills")
    assert verdict.outcomes["published"] > 0
    placed = {record.key: record.partition for record in site.logs.records[Topic.MARKET_FEATURES]}
    assert any(placed[symbol.encode()] != _by_murmur2(symbol) for symbol in SYMBOLS), "the two partitioners agree on every symbol"
    for topic in (Topic.STRATEGY_SIGNALS, Topic.SIGNAL_AUDIT):
        for record in site.logs.records[topic]:
            assert record.partition == placed[record.key], topic
    assert site.logs.dead_letters == []


async def test_a_symbol_that_arrives_on_a_second_partition_is_dead_lettered_there(librdkafka_site: Site) -> None:
    """A second feed, whose client hashes keys with murmur2."""
    site = librdkafka_site
    worker = await site.worker(bus={"instance_id": "worker-0"}).start().ready()
    await site.logs.until(lambda: len(site.logs.records[Topic.MARKET_FEATURES]) > len(SYMBOLS), "the history")
    placed = {record.key: record.partition for record in site.logs.records[Topic.MARKET_FEATURES]}
    symbol = next(symbol for symbol in SYMBOLS if placed[symbol.encode()] != _by_murmur2(symbol))
    second = await site.bus.producer(client_id="second-feed")
    bars: list[MarketFeatures] = await site.feed([symbol])
    stray = bars[0].model_copy(update={"ts_open_ms": bars[0].ts_close_ms, "ts_close_ms": 2 * bars[0].ts_close_ms - bars[0].ts_open_ms})
    try:
        await (await second.send("demo.market-features", key=symbol.encode(), value=stray.encode()))
        await site.logs.until(lambda: len(site.logs.dead_letters) == 1, "the dead letter", told=site.tails)
        await site.logs.until(lambda: len(site.logs.ended) == 1, "the outcome of the feed's own bar", told=site.tails)
        worker.kill()
        await worker.start().ready()
        await (await second.send("demo.market-features", key=symbol.encode(), value=stray.encode()))
        await site.logs.until(lambda: len(site.logs.dead_letters) >= 2, "the dead letter of the next life", told=site.tails)
        await site.feed([symbol])
        await site.logs.until(lambda: len(site.logs.ended) == 2, "the outcome of the feed's next bar", told=site.tails)
    except BusError as error:
        raise AssertionError(site.tails()) from error
    finally:
        await second.close()
    assert site.logs.outcomes() == {"published": 2}
    assert {letter.reason for _, letter in site.logs.dead_letters} == {DeadLetterReason.WRONG_PARTITION}
    assert {letter.partition for _, letter in site.logs.dead_letters} == {_by_murmur2(symbol)}
