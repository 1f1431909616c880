"""The scorer on a real Kafka."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import pytest

from deploy.local import LocalKafka
from schemas import DeadLetter, DeadLetterReason, MarketFeatures, Signal, Topic
from services.core.bus.renamed import RenamedBus
from services.core.topic_settings import TopicSettings
from tests.integration.fusion.worker import Worker
from tests.integration.scoring.desk import Desk
from tests.integration.scoring.market import Market
from tests.unit.core.bus.registry import BARS, Registry, avro
from tests.unit.scoring.build import signal

pytestmark = pytest.mark.integration


async def test_signals_and_bars_become_outcomes(desk: Desk) -> None:
    market = Market()
    await desk.publish(market.instruments)
    worker = await desk.worker().start().ready()
    await desk.publish(market.moves)
    bad = signal(symbol="AAA.XTST", stop=None).encode()
    await desk.publish_raw(Topic.STRATEGY_SIGNALS, b"AAA.XTST", bad)
    await desk.publish_raw(Topic.MARKET_FEATURES, b"AAA.XTST", b"{")
    await desk.judged(len(market.expected))
    await desk.eventually(lambda: _put_aside(desk, 2), "two dead letters")
    assert await desk.outcomes() == market.expected
    records = await desk.count(Topic.STRATEGY_SIGNALS) + await desk.count(Topic.MARKET_FEATURES)
    await desk.eventually(lambda: _all_done(worker, records), "lag and progress on the metrics page")
    worker.terminate()
    assert await worker.ended() == 0
    letters = {record.value: DeadLetter.from_headers(record.headers) for record in await desk.records(Topic.DEAD_LETTERS)}
    assert {value: (letter.reason, letter.topic) for value, letter in letters.items()} == {
        bad: (DeadLetterReason.INVALID, "demo.strategy-signals"),
        b"{": (DeadLetterReason.MALFORMED, "demo.market-features"),
    }


async def test_signals_duplicated_and_reordered_and_hours_before_their_bars_give_the_same_outcomes(desk: Desk) -> None:
    market = Market()
    said = [move for move in market.moves if not isinstance(move, MarketFeatures)]
    bars = [move for move in market.moves if isinstance(move, MarketFeatures)]
    generator = random.Random(2)  # noqa: S311 - an order, not a secret
    await desk.publish([*market.instruments, *generator.sample(said * 2, 2 * len(said))])
    half = len(bars) // 2
    await desk.publish([one for bar in bars[:half] for one in (bar, generator.choice(bars[: bars.index(bar) + 1]))])
    await desk.publish_in_transaction(bars[half:])  # whose end takes an offset that no record has
    await desk.publish(bars[half:])
    worker = desk.worker().start()
    await desk.judged(len(market.expected))
    assert await desk.outcomes() == market.expected
    worker.terminate()
    assert await worker.ended() == 0


async def test_bars_and_signals_of_aborted_transactions_are_not_judged_and_leave_no_lag(desk: Desk) -> None:
    market = Market()
    aborted = [move for move in Market(seed=2).moves if isinstance(move, MarketFeatures | Signal)]
    await desk.publish(market.instruments)
    worker = await desk.worker().start().ready()
    half = len(market.moves) // 2
    await desk.publish(market.moves[:half])
    await desk.publish_in_transaction(aborted, commit=False)
    await desk.publish(market.moves[half:])
    await desk.publish_in_transaction(aborted, commit=False)
    await desk.judged(len(market.expected))
    assert await desk.outcomes() == market.expected
    await desk.eventually(lambda: _no_lag(worker), "no lag on the metrics page")


async def test_ten_kills_leave_outcomes_as_if_nothing_had_happened(desk: Desk, unique: str) -> None:
    market = Market(36)
    await desk.publish(market.instruments)
    # Members that come back under their names are not waited for.
    workers = [desk.worker(f"scorer-{number}", bus={"instance_id": f"{unique}-{number}"}) for number in range(2)]
    *chunks, last = market.chunks(6)
    for number, chunk in enumerate(chunks):
        for worker in workers:
            worker.start()
        before = await desk.count(Topic.SIGNAL_OUTCOMES)
        await desk.publish(chunk)
        await desk.eventually(partial(_more_than, desk, before), "an outcome of these lives")
        if number % 2:  # nothing before this is read again: what is still open stands in the changelog alone
            await desk.eventually(desk.all_committed, "the commit of all that was published")
        for worker in workers:
            worker.kill()
    for worker in workers:
        worker.start()
    await desk.publish(last)
    await desk.judged(len(market.expected))
    assert await desk.outcomes() == market.expected
    for worker in workers:
        worker.terminate()
    assert [await worker.ended() for worker in workers] == [0, 0]
    assert await desk.open_signals() == market.open


async def test_partitions_that_move_from_worker_to_worker_and_back_lose_and_double_nothing(desk: Desk) -> None:
    market = Market(45)
    await desk.publish(market.instruments)
    first, second, third = market.chunks(3)
    stays = await desk.worker("stays").start().ready()
    await desk.publish(first)
    goes = await desk.worker("goes").start().ready()
    await desk.publish(second)
    await desk.eventually(lambda: _judged_by(goes), "the second worker to judge something")
    goes.terminate()
    await desk.publish(third)
    assert await goes.ended() == 0
    await desk.judged(len(market.expected))
    assert await desk.outcomes() == market.expected
    stays.terminate()
    assert await stays.ended() == 0


async def _more_than(desk: Desk, count: int) -> bool:
    return await desk.count(Topic.SIGNAL_OUTCOMES) > count


async def _all_done(worker: Worker, records: int) -> bool:
    return await worker.metric("aquiline_lag_records") == 0 and await worker.metric("aquiline_watermark_offset") >= records


async def _no_lag(worker: Worker) -> bool:
    return await worker.metric("aquiline_lag_records") == 0


async def _put_aside(desk: Desk, count: int) -> bool:
    return len(await desk.records(Topic.DEAD_LETTERS)) >= count


async def _judged_by(worker: Worker) -> bool:
    return await worker.metric("aquiline_signal_outcomes_total") > 0


async def test_topics_by_other_names_and_bars_in_avro_are_scored_the_same(scoring_kafka: LocalKafka, tmp_path: Path, unique: str) -> None:
    names = {topic: f"their-{topic.value}" for topic in Topic}
    desk, registry = Desk(tmp_path, scoring_kafka.url, unique), Registry()
    registry.add(7, BARS)
    async with registry.serving():
        desk.values["topics"] = {
            "names": {topic.value: name for topic, name in names.items()},
            "decoders": {"market-features": "avro"},
            "registry_url": registry.url,
        }
        desk.bus = RenamedBus(desk.bus, TopicSettings(names=names))  # type: ignore[assignment]
        await desk.open()
        await _judged_in_avro(desk)


async def _judged_in_avro(desk: Desk) -> None:
    try:
        market = Market()
        await desk.publish(market.instruments)
        for move in market.moves:
            if isinstance(move, MarketFeatures):
                await desk.publish_raw(Topic.MARKET_FEATURES, move.symbol.encode(), avro(BARS, 7, move))
            else:
                await desk.publish([move])
        worker = await desk.worker().start().ready()
        await desk.judged(len(market.expected))
        assert await desk.outcomes() == market.expected
        await desk.eventually(lambda: _no_lag(worker), "no lag on the metrics page")
        worker.terminate()
        assert await worker.ended() == 0
    finally:
        await desk.close()
