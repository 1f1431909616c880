"""Sending prefixes ahead: when an engine fails, and beside decisions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest

from services.core.clock import VirtualClock
from services.core.settings import RedisSettings
from services.fusion.prompt.builder import PromptBuilder
from services.fusion.prompt.prewarm import Prewarmer
from services.fusion.prompt.store import PrefixStore
from services.fusion.prompt.traffic import EngineTraffic
from services.fusion.prompt.warm_prefixes import current_epoch
from services.fusion.state.intake import NullSink
from services.inference.engine import Capabilities, EngineError, EngineLoad, TokenIds, Usage
from tests.unit.fusion import build
from tests.unit.fusion.build import bar, instrument, record
from tests.unit.fusion.desk import ScriptedEngine
from tests.unit.fusion.log import Folder

SYMBOLS = [f"COIN{number}-USD.CBSE" for number in range(4)]


class Listing(ScriptedEngine):
    """Lists the symbols whose prefixes it was sent, once each."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[str] = []

    async def warm(self, rid: str, affinity: str, input_ids: TokenIds) -> Usage:
        if affinity not in self.sent:
            self.sent.append(affinity)
        return await super().warm(rid, affinity, input_ids)


class FailingOnce(Listing):
    """Refuses the first call for one symbol, as one of several engines does that is gone."""

    def __init__(self, symbol: str) -> None:
        super().__init__()
        self._failing: str | None = symbol

    async def warm(self, rid: str, affinity: str, input_ids: TokenIds) -> Usage:
        if affinity == self._failing:
            self._failing = None
            raise EngineError("engine_unreachable", "connection refused")
        return await super().warm(rid, affinity, input_ids)


def prewarmer_of(engine: ScriptedEngine, traffic: EngineTraffic, late_ms: Sequence[int] = (0, 0, 0, 0), *, bars: int = 3) -> Prewarmer:
    """Return one with `bars` bars of each symbol, whose records came `late_ms` after the bars' ends."""
    return desk_of(engine, traffic, late_ms, bars=bars)[1]


def desk_of(
    engine: ScriptedEngine, traffic: EngineTraffic, late_ms: Sequence[int] = (0, 0, 0, 0), *, bars: int
) -> tuple[Folder, Prewarmer]:
    """Return one, and what folds bars for it."""
    using = build.settings(prewarm=True, min_bars=1, window_bars=max(16, bars))
    folder = Folder(using, instruments=[instrument(symbol) for symbol in SYMBOLS])
    for number, symbol in enumerate(SYMBOLS):
        for slot in range(bars):
            closed = bar(slot, symbol=symbol)
            folder.intake.take(record(bars * number + slot, closed, timestamp_ms=closed.ts_close_ms + late_ms[number]), NullSink())
    store = PrefixStore(None, RedisSettings(url="none://"), VirtualClock(), "test")
    prompts = PromptBuilder(using.fusion, build.tokenizer(), "minicpm4", store, 1_000_000)
    return folder, Prewarmer(using, folder.clock, engine, prompts, folder.books, traffic=traffic)


@asynccontextmanager
async def running(prewarmer: Prewarmer) -> AsyncIterator[None]:
    task = asyncio.create_task(prewarmer.run())
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_one_engine_error_costs_its_own_prefix_and_no_other() -> None:
    engine = FailingOnce(SYMBOLS[0])
    prewarmer = prewarmer_of(engine, EngineTraffic())
    async with running(prewarmer):
        prewarmer.warm_current(SYMBOLS)
        await prewarmer.idle()
    assert set(engine.sent) == set(SYMBOLS[1:])


async def test_a_prefix_waits_until_no_decision_holds_a_permit() -> None:
    engine, traffic = ScriptedEngine(), EngineTraffic()
    prewarmer = prewarmer_of(engine, traffic)
    traffic.decision_begins()
    traffic.decision_begins()
    async with running(prewarmer):
        prewarmer.warm_current(SYMBOLS[:1])
        for _ in range(50):
            await asyncio.sleep(0)
        traffic.decision_ends()
        for _ in range(50):
            await asyncio.sleep(0)
        assert engine.warmed == []
        traffic.decision_ends()
        await prewarmer.idle()
    assert engine.warmed != []


async def test_nothing_is_sent_ahead_beside_decisions_that_leave_no_gap() -> None:
    engine, traffic = ScriptedEngine(), EngineTraffic()
    prewarmer = prewarmer_of(engine, traffic)
    traffic.decision_begins()
    async with running(prewarmer):
        prewarmer.warm_current(SYMBOLS)
        for symbol in SYMBOLS:
            prewarmer.after_decision(symbol, "1m")
        for _ in range(20):
            # One permit is given back and taken again in the same turn of the loop.
            traffic.decision_begins()
            traffic.decision_ends()
            for _ in range(10):
                await asyncio.sleep(0)
        assert engine.warmed == []


class Slow(ScriptedEngine):
    """Computes a prefix until it is told to end."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()
        self.may_end = asyncio.Event()

    async def warm(self, rid: str, affinity: str, input_ids: TokenIds) -> Usage:
        self.calls += 1
        self.begun.set()
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.ended.set()
            raise
        return await super().warm(rid, affinity, input_ids)


async def test_a_decision_that_begins_ends_what_is_being_sent_ahead_and_it_is_sent_again_later() -> None:
    engine, traffic = Slow(), EngineTraffic()
    prewarmer = prewarmer_of(engine, traffic)
    async with running(prewarmer):
        prewarmer.warm_current(SYMBOLS[:1])
        async with asyncio.timeout(10):
            await engine.begun.wait()
            traffic.decision_begins()
            await engine.ended.wait()
            for _ in range(50):
                await asyncio.sleep(0)
            assert engine.calls == 1
            engine.may_end.set()
            traffic.decision_ends()
            await prewarmer.idle()
    assert (engine.calls, len(engine.warmed)) == (2, 1)


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(10_000):
        if holds():
            return
        await asyncio.sleep(0)
    raise AssertionError("it did not come to that")


class Yielding(Slow):
    """Stops when a call ends."""

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, prewarm_yields=True)


@pytest.mark.parametrize(
    ("kind", "bars", "into_the_step_ms", "calls"),
    [
        pytest.param(Slow, 96, [10], 4, id="not begun"),
        pytest.param(Slow, 96, [60], 3, id="begun"),
        pytest.param(Slow, 128, [60, 60], 5, id="begun twice in a row"),
        pytest.param(Yielding, 96, [60], 4, id="an engine that stops"),
    ],
)
async def test_a_step_that_an_engine_computes_to_its_end_is_not_sent_again(
    kind: type[Slow], bars: int, into_the_step_ms: Sequence[int], calls: int
) -> None:
    engine, traffic = kind(), EngineTraffic()
    prewarmer = prewarmer_of(engine, traffic, bars=bars)
    clock = prewarmer._clock
    assert isinstance(clock, VirtualClock)
    async with running(prewarmer):
        prewarmer.warm_current(SYMBOLS[:1])
        await until(lambda: engine.calls == 1)
        clock.advance_to(clock.now_ms() + 100)
        engine.may_end.set()
        await until(lambda: len(engine.warmed) == 1)
        engine.may_end.clear()
        for number, into_ms in enumerate(into_the_step_ms, 2):
            await until(lambda number=number: engine.calls == number)  # type: ignore[misc]
            engine.ended.clear()
            clock.advance_to(clock.now_ms() + into_ms)
            traffic.decision_begins()
            await until(engine.ended.is_set)
            traffic.decision_ends()
            traffic._lasted_ms.clear()  # of the test's own time, in which a step of 100 ms has no room
        engine.may_end.set()
        async with asyncio.timeout(10):
            await prewarmer.idle()
    assert engine.calls == calls
    assert len(engine.warmed) == calls - len(into_the_step_ms)


class OutlierFirst(ScriptedEngine):
    """Takes a minute over its first call, and 50 ms over each one after."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = VirtualClock()

    async def warm(self, rid: str, affinity: str, input_ids: TokenIds) -> Usage:
        self.clock.advance_to(self.clock.now_ms() + (50 if self.warmed else 60_000))
        return await super().warm(rid, affinity, input_ids)


async def test_one_call_that_took_a_minute_does_not_stand_for_the_time_of_the_next_ones() -> None:
    engine, traffic = OutlierFirst(), EngineTraffic()
    prewarmer = prewarmer_of(engine, traffic, bars=96)
    clock = prewarmer._clock
    assert isinstance(clock, VirtualClock)
    engine.clock = clock
    async with running(prewarmer):
        prewarmer.warm_current(SYMBOLS[:1])
        await prewarmer.idle()
        traffic._lasted_ms.extend([10_000.0] * 32)
        traffic.decision_begins()
        traffic.decision_ends()
        already = len(engine.warmed)
        prewarmer.warm_current(SYMBOLS[1:2])
        await until(lambda: len(engine.warmed) > already)


class AlwaysCut(ScriptedEngine):
    """Ends its first call after 100 ms; into each later one a decision comes after 60, while the call still waits in the queue."""

    def __init__(self, traffic: EngineTraffic) -> None:
        super().__init__()
        self.clock = VirtualClock()
        self.cut = asyncio.Event()
        self.cuts = 0
        self._traffic = traffic

    async def warm(self, rid: str, affinity: str, input_ids: TokenIds) -> Usage:
        if not self.warmed:
            self.clock.advance_to(self.clock.now_ms() + 100)
            return await super().warm(rid, affinity, input_ids)
        self.clock.advance_to(self.clock.now_ms() + 60)
        self._traffic.decision_begins()
        try:
            await asyncio.Event().wait()
        finally:
            self._traffic.decision_ends()
            self.cut.set()
            self.cuts += 1
            self._traffic._lasted_ms.clear()  # of the test's own time, in which a step of 100 ms has no room
        raise AssertionError("a decision ends the call")


async def test_a_next_prefix_of_which_no_call_came_to_its_end_does_not_count_as_held() -> None:
    traffic = EngineTraffic()
    engine = AlwaysCut(traffic)
    folder, prewarmer = desk_of(engine, traffic, bars=96)
    assert isinstance(folder.clock, VirtualClock)
    engine.clock = folder.clock
    symbol = SYMBOLS[0]
    book = folder.books.get(symbol)
    assert book is not None
    slot, began = 96, current_epoch(book, "1m")[0]
    async with running(prewarmer):
        while current_epoch(book, "1m")[0] < began + 2:
            engine.cut.clear()
            prewarmer.after_decision(symbol, "1m")
            waiting = [asyncio.create_task(prewarmer.idle()), asyncio.create_task(engine.cut.wait())]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in waiting:
                task.cancel()
            folder.intake.take(record(1_000 + slot, closed := bar(slot, symbol=symbol), timestamp_ms=closed.ts_close_ms), NullSink())
            slot += 1
    assert engine.cuts >= 3
    assert not prewarmer.prefixes.holds(book, "1m")


class BeginsMeanwhile(ScriptedEngine):
    """Has a decision begin while it is asked for its load."""

    def __init__(self, traffic: EngineTraffic) -> None:
        super().__init__()
        self.asked = 0
        self.calls = 0
        self._traffic = traffic

    async def load(self, affinity: str | None = None) -> EngineLoad | None:
        del affinity
        self.asked += 1
        if self.asked == 1:
            self._traffic.decision_begins()
        return None

    async def warm(self, rid: str, affinity: str, input_ids: TokenIds) -> Usage:
        self.calls += 1
        return await super().warm(rid, affinity, input_ids)


async def test_a_slice_is_not_sent_beside_a_decision_that_began_while_the_engine_was_asked_for_its_load() -> None:
    traffic = EngineTraffic()
    engine = BeginsMeanwhile(traffic)
    folder, prewarmer = desk_of(engine, traffic, bars=96)
    symbol = SYMBOLS[0]
    book = folder.books.get(symbol)
    assert book is not None
    slot = 96
    async with running(prewarmer):
        while not engine.asked:
            folder.intake.take(record(1_000 + slot, closed := bar(slot, symbol=symbol), timestamp_ms=closed.ts_close_ms), NullSink())
            slot += 1
            prewarmer.after_decision(symbol, "1m")
            for _ in range(50):
                await asyncio.sleep(0)
        await until(lambda: (symbol, "1m") in prewarmer._queue)  # lined up again
        assert engine.calls == 0
        traffic.decision_ends()
        async with asyncio.timeout(10):
            await prewarmer.idle()


class Busy(ScriptedEngine):
    """Says that calls wait, as an engine does that another worker keeps busy."""

    async def load(self, affinity: str | None = None) -> EngineLoad | None:
        del affinity
        return EngineLoad(running=8, waiting=1, waiting_uncached_tokens=10)


async def test_nothing_is_sent_ahead_to_an_engine_on_which_calls_wait() -> None:
    engine = Busy()
    prewarmer = prewarmer_of(engine, EngineTraffic())
    async with running(prewarmer):
        prewarmer.warm_current(SYMBOLS)
        await prewarmer.idle()
    assert engine.warmed == []


async def test_a_prefix_that_was_sent_counts_as_held_until_its_bars_change() -> None:
    engine = ScriptedEngine()
    prewarmer = prewarmer_of(engine, EngineTraffic())
    book = prewarmer._books.get(SYMBOLS[0])
    assert book is not None
    assert not prewarmer.prefixes.holds(book, "1m")
    async with running(prewarmer):
        prewarmer.warm_current(SYMBOLS[:1])
        await prewarmer.idle()
    assert prewarmer.prefixes.holds(book, "1m")
    book.epochs.start_anew()
    assert not prewarmer.prefixes.holds(book, "1m")


async def test_a_prefix_that_a_decision_has_computed_meanwhile_is_not_sent() -> None:
    engine, traffic = ScriptedEngine(), EngineTraffic()
    prewarmer = prewarmer_of(engine, traffic)
    book = prewarmer._books.get(SYMBOLS[0])
    assert book is not None
    traffic.decision_begins()
    async with running(prewarmer):
        prewarmer.warm_current(SYMBOLS[:1])
        prewarmer.prefixes.add(SYMBOLS[0], "1m", *current_epoch(book, "1m"))
        traffic.decision_ends()
        await prewarmer.idle()
    assert engine.warmed == []


async def test_after_a_takeover_prefixes_are_sent_in_the_order_in_which_the_next_bars_are_due() -> None:
    engine = Listing()
    prewarmer = prewarmer_of(engine, EngineTraffic(), late_ms=(30, 10, 70_000, 20))
    async with running(prewarmer):
        prewarmer.warm_all()
        await prewarmer.idle()
    # Against the third one's last record the others are overdue: their order stays.
    assert engine.sent == [SYMBOLS[2], SYMBOLS[1], SYMBOLS[3], SYMBOLS[0]]


async def test_a_prefix_that_a_decision_computes_while_it_is_being_sent_is_not_sent_any_further() -> None:
    engine, traffic = Slow(), EngineTraffic()
    prewarmer = prewarmer_of(engine, traffic)
    book = prewarmer._books.get(SYMBOLS[0])
    assert book is not None
    async with running(prewarmer):
        prewarmer.warm_current(SYMBOLS[:1])
        async with asyncio.timeout(10):
            await engine.begun.wait()
            traffic.decision_begins()
            await engine.ended.wait()
            prewarmer.prefixes.add(SYMBOLS[0], "1m", *current_epoch(book, "1m"))
            engine.may_end.set()
            traffic.decision_ends()
            await prewarmer.idle()
    assert (engine.calls, engine.warmed) == (1, [])


async def test_the_next_prefix_is_sent_by_two_pages_and_whole_when_its_epoch_begins() -> None:
    engine = ScriptedEngine()
    folder, prewarmer = desk_of(engine, EngineTraffic(), bars=96)
    symbol = SYMBOLS[0]
    book = folder.books.get(symbol)
    assert book is not None
    slot, index = 96, current_epoch(book, "1m")[0]
    sent_by_epoch: dict[int, int] = {}
    async with running(prewarmer):
        while current_epoch(book, "1m")[0] < index + 3:
            folder.intake.take(record(1_000 + slot, closed := bar(slot, symbol=symbol), timestamp_ms=closed.ts_close_ms), NullSink())
            slot += 1
            already = len(engine.warmed)
            began = current_epoch(book, "1m")[0]
            if len({*sent_by_epoch, began}) > len(sent_by_epoch) > 1:
                base, fixed = prewarmer._prompts.current(book, "1m")
                assert len(engine.warmed[-1]) == len(await prewarmer._prompts.ids_of(base)), "all but the lines since"
                assert len(base) - fixed == 6
            prewarmer.after_decision(symbol, "1m")
            await prewarmer.idle()
            sent_by_epoch[began] = sent_by_epoch.get(began, 0) + len(engine.warmed) - already
    assert sent_by_epoch[index + 1] == sent_by_epoch[index + 2] == 3
