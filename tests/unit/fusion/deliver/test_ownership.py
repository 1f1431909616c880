"""Members that come and go: what stands by, what is kept over a rebalance, and what is decided before everything is rebuilt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from schemas import Outcome, Topic
from services.core.health import Health
from services.core.topic_admin import ensure_topics
from services.fusion.deliver.recovery import Recovery, Takeover
from services.fusion.rooms import WorkerDependencies
from services.fusion.worker import FusionWorker
from tests.unit.fusion import build
from tests.unit.fusion.build import MARKET, MODE, bar, instrument
from tests.unit.fusion.desk import BUY, HOLD, NOW, Desk, ScriptedEngine

MANY = [f"COIN{number}-USD.CBSE" for number in range(8)]


async def partitions_of(desk: Desk) -> dict[str, int]:
    """Return the partition of each symbol's bars so far."""
    return {(one.key or b"").decode(): one.partition for one in await desk.read(Topic.MARKET_FEATURES)}


async def two_symbols(desk: Desk, bars: int) -> tuple[str, str]:
    """Publish `bars` bars each of a symbol of partition 0 and one of partition 1; return both."""
    await desk.instruments(*map(instrument, MANY))
    for symbol in MANY:
        await desk.history(1, symbol)
    found = {number: symbol for symbol, number in (await partitions_of(desk)).items()}
    first, second = found[0], found[1]
    for symbol in (first, second):
        await desk.bars(*(bar(slot, symbol=symbol) for slot in range(1, bars)))
    return first, second


@asynccontextmanager
async def another_worker(desk: Desk) -> AsyncIterator[FusionWorker]:
    """Have a second worker join the group, and leave it again."""
    health, engine = Health(), ScriptedEngine([HOLD])
    second = await FusionWorker.open(WorkerDependencies(desk.bus, desk.settings, desk.clock, health, engine, None, build.tokenizer(), None))
    running = asyncio.create_task(second.run())
    await desk.until(lambda: health.ready and desk.health.ready)
    yield second
    second.stop()
    await running
    await desk.until(lambda: len(desk.worker._rooms.partitions._owned) == 2 and desk.worker.caught_up)


def held(worker: FusionWorker, symbol: str) -> int:
    """Return how many closed bars the worker's book of `symbol` holds."""
    book = worker._rooms.books.get(symbol)
    return 0 if book is None else len(book.bars["1m"])


async def test_a_worker_without_partitions_is_ready_and_takes_over_when_the_other_leaves() -> None:
    desk = Desk(ScriptedEngine([HOLD]), min_bars=1, start_from="latest")
    await ensure_topics(await desk.bus.admin(), MODE, 1)
    await desk.send(Topic.INSTRUMENTS, instrument())
    async with desk.running():
        health, engine = Health(), ScriptedEngine([HOLD])
        second = await FusionWorker.open(
            WorkerDependencies(desk.bus, desk.settings, desk.clock, health, engine, None, build.tokenizer(), None)
        )
        running = asyncio.create_task(second.run())
        await desk.until(lambda: health.ready and desk.health.ready)
        await desk.bars(bar(0))
        await desk.concluded(1)
    await desk.bars(bar(1))
    async with asyncio.timeout(20):
        while second.accounts.outcomes.total() < 1:  # noqa: ASYNC110 - counts have no event
            await asyncio.sleep(0.002)
    assert len(await desk.audit()) == 2
    assert desk.clock.now_ms() == NOW
    second.stop()
    await running


async def test_a_partition_that_stays_with_its_worker_over_a_rebalance_keeps_its_books() -> None:
    desk = await Desk.open(ScriptedEngine([HOLD]), min_bars=1, start_from="latest", window_bars=16, epoch_slots=8)
    stays, moves = await two_symbols(desk, 12)
    async with desk.running() as worker:
        await desk.bars(bar(12, symbol=stays), bar(12, symbol=moves))
        await desk.concluded(2)
        # Retention takes away what was folded: books that are built anew hold nothing of it.
        await (await desk.bus.admin()).truncate([MARKET])
        async with another_worker(desk) as second:
            assert (held(worker, stays), held(second, moves)) == (13, 0)
            assert held(worker, moves) == 0, "what another worker owns is dropped"
        assert (held(worker, stays), held(worker, moves)) == (13, 0)
        await desk.bars(bar(13, symbol=stays))
        await desk.concluded(3)
        assert held(worker, stays) == 14


async def test_a_kept_book_gives_the_prompt_that_a_rebuilt_one_gives() -> None:
    desk = await Desk.open(ScriptedEngine([HOLD]), min_bars=1, start_from="latest", window_bars=16, epoch_slots=8)
    stays, _ = await two_symbols(desk, 12)
    async with desk.running():
        await desk.bars(bar(12, 101.0, symbol=stays))
        await desk.concluded(1)
        async with another_worker(desk):
            await desk.bars(bar(13, 102.0, symbol=stays))
            await desk.concluded(2)
        await desk.bars(bar(14, 103.0, symbol=stays))
        kept = (await desk.concluded(3))[-1]
        asked = desk.engine.requests[-1].input_ids
    anew = await Desk.open(ScriptedEngine([HOLD]), min_bars=1, start_from="latest", window_bars=16, epoch_slots=8)
    await anew.instruments(*map(instrument, MANY))
    for record in await desk.read(Topic.MARKET_FEATURES):
        if bar(14, 103.0, symbol=stays).encode() != record.value:
            await anew.send_raw(Topic.MARKET_FEATURES, record.key, record.value)
    async with anew.running():
        await anew.bars(bar(14, 103.0, symbol=stays))
        rebuilt = (await anew.concluded(1))[-1]
    assert rebuilt.prompt_hash == kept.prompt_hash
    assert anew.engine.requests[-1].input_ids.tolist() == asked.tolist()


async def test_a_split_that_comes_between_owning_and_owning_again_is_in_a_kept_book() -> None:
    desk = await Desk.open(ScriptedEngine([HOLD]), min_bars=1, start_from="latest", window_bars=16, epoch_slots=8)
    stays, _ = await two_symbols(desk, 12)
    async with desk.running() as worker:
        await desk.bars(bar(12, symbol=stays))
        await desk.concluded(1)
        async with another_worker(desk):
            await desk.split(build.split(bar(12).ts_open_ms, 2.0, stays))
            await desk.until(lambda: worker._rooms.books.by_symbol[stays].bars["1m"].close[0] == 50.0)
        await desk.bars(bar(13, 100.0, symbol=stays))
        await desk.concluded(2)
        assert list(worker._rooms.books.by_symbol[stays].bars["1m"].close)[-3:] == [50.0, 100.0, 100.0]


async def test_what_is_unfinished_when_partitions_move_is_asked_again_by_a_worker_that_keeps_the_partition() -> None:
    stuck = asyncio.Event()
    desk = await Desk.open(ScriptedEngine([stuck], [HOLD]), min_bars=1, start_from="latest", drain_ms=100)
    stays, _ = await two_symbols(desk, 3)
    async with desk.running() as worker:
        await desk.bars(bar(3, symbol=stays))
        await desk.until(lambda: len(desk.engine.requests) == 1)
        moving = asyncio.create_task(_pass_time(desk))
        async with another_worker(desk):
            await desk.concluded(1)
        moving.cancel()
        assert held(worker, stays) == 4
    assert [one.outcome for one in await desk.audit()] == [Outcome.PUBLISHED]
    assert len(desk.engine.requests) == 2


async def _pass_time(desk: Desk) -> None:
    """Let the drain's budget pass on the worker's clock."""
    while True:
        await asyncio.sleep(0.005)
        desk.clock.advance_to(desk.clock.now_ms() + 1)


class HeldRebuilds:
    """Keeps the rebuild of one partition waiting."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, partition: int) -> None:
        self.release = asyncio.Event()
        rebuild = Recovery.rebuild

        async def held_up(recovery: Recovery, takeover: Takeover) -> None:
            if takeover.partition == partition:
                await self.release.wait()
            await rebuild(recovery, takeover)

        monkeypatch.setattr(Recovery, "rebuild", held_up)


async def test_a_partition_that_is_rebuilt_is_decided_on_while_another_is_being_rebuilt(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = await Desk.open(ScriptedEngine([HOLD]), min_bars=1, start_from="latest")
    first, second = await two_symbols(desk, 3)
    held_up = HeldRebuilds(monkeypatch, 1)
    desk.start()
    await desk.until(lambda: hasattr(desk, "worker") and desk.worker._rooms.partitions.may_decide(0))
    await desk.bars(bar(3, symbol=second), bar(3, symbol=first))
    assert [one.symbol for one in await desk.concluded(1)] == [first]
    assert not desk.health.ready
    assert not desk.worker.caught_up
    held_up.release.set()
    await desk.ready()
    assert {one.symbol for one in await desk.concluded(2)} == {first, second}
    await desk.stop()


async def test_the_rate_limit_counts_signals_of_partitions_that_are_not_rebuilt_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = await Desk.open(ScriptedEngine([BUY]), min_bars=1, start_from="latest", rate_limit_per_min=1)
    first, second = await two_symbols(desk, 3)
    async with desk.running():
        await desk.bars(bar(3, symbol=second))
        await desk.published(1)
        await desk.concluded(1)
    HeldRebuilds(monkeypatch, 1)
    desk.start()
    await desk.until(lambda: desk.worker._rooms.partitions.may_decide(0))
    await desk.bars(bar(3, symbol=first))
    assert {one.symbol: one.reason for one in await desk.concluded(2)} == {second: None, first: "rate_limit"}
    await desk.stop()


async def test_the_partition_with_most_to_catch_up_with_is_rebuilt_first(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = await Desk.open(ScriptedEngine([HOLD]), min_bars=1, start_from="latest")
    first, second = await two_symbols(desk, 3)
    async with desk.running():
        await desk.bars(bar(3, symbol=first), bar(3, symbol=second))
        await desk.concluded(2)
    await desk.bars(bar(4, symbol=first), *(bar(slot, symbol=second) for slot in range(4, 9)))
    order: list[int] = []
    rebuild = Recovery.rebuild

    async def noted(recovery: Recovery, takeover: Takeover) -> None:
        order.append(takeover.partition)
        await rebuild(recovery, takeover)

    monkeypatch.setattr(Recovery, "rebuild", noted)
    async with desk.running():
        pass
    assert order == [1, 0]
