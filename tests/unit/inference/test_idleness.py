"""When an address is asked for tokens of nobody's, on a clock that the test moves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator

from hypothesis import given
from hypothesis import strategies as st

from services.core.breaker import Breaker
from services.core.clock import VirtualClock
from services.core.metrics import REGISTRY
from services.inference.engine import Chunk, EngineError, EngineRequest, Sampling, Usage
from services.inference.idleness import Idleness, probe
from services.inference.rules import RulesEngine
from services.inference.with_breaker import EngineWithBreaker

IDLE_MS, TIMEOUT_MS = 10_000, 5_000


class Held(RulesEngine):
    """Answers what it is asked once it is let, or fails."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(clock)
        self.clock = clock
        self.let = asyncio.Event()
        self.let.set()
        self.reason = ""
        self.requests: list[EngineRequest] = []
        self.given_up: list[str] = []

    async def stream(self, request: EngineRequest) -> AsyncGenerator[Chunk]:
        self.requests.append(request)
        try:
            await self.let.wait()
        except asyncio.CancelledError:
            self.given_up.append(request.rid)
            raise
        if self.reason:
            raise EngineError(self.reason, "as told")
        yield Chunk("x", usage=Usage(1, 1))


class Watched:
    """An engine under watch, and what its metrics say."""

    def __init__(self, failures: int = 2) -> None:
        self.clock = VirtualClock(1_000_000)
        self.engine = Held(self.clock)
        self.guarded = EngineWithBreaker(
            self.engine,
            Breaker(failures, 1_000),
            self.clock,
            patience_ms=1_000,
            probe_idle_ms=IDLE_MS,
            probe_timeout_ms=TIMEOUT_MS,
        )

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.guarded.watch())
        await self.settle()
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def pass_ms(self, passing_ms: int) -> None:
        """Let time pass in steps of a tenth of a second."""
        for _ in range(passing_ms // 100):
            self.clock.advance_to(self.clock.now_ms() + 100)
            await self.settle()

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    async def decide(self) -> str:
        request = EngineRequest("d" * 32, "A.X", "fast", probe(0).input_ids, Sampling(8), 0, lambda: ("", ""), {})
        try:
            return "".join([chunk.text async for chunk in self.guarded.stream(request)])
        except EngineError as error:
            return error.reason

    def metric(self, name: str, **labels: str) -> float | None:
        return REGISTRY.get_sample_value(name, {"engine": "rules", **labels})


async def test_an_engine_that_nobody_asks_is_asked_for_a_few_tokens_each_time_it_has_been_idle() -> None:
    watched = Watched()
    before = watched.metric("aquiline_engine_probes_total", end="answered") or 0
    calls = watched.metric("aquiline_engine_calls_total", end="answered")
    async with watched.watching():
        await watched.pass_ms(IDLE_MS - 100)
        assert watched.engine.requests == []
        assert watched.metric("aquiline_engine_silent_seconds") == 9.9
        await watched.pass_ms(100)
        assert len(watched.engine.requests) == 1
        assert watched.engine.requests[0].sampling.max_new_tokens < 10
        assert watched.metric("aquiline_engine_silent_seconds") == 0
        await watched.pass_ms(3 * IDLE_MS)
        assert len(watched.engine.requests) == 4
    assert watched.metric("aquiline_engine_probes_total", end="answered") == before + 4
    assert watched.metric("aquiline_engine_calls_total", end="answered") == calls
    assert watched.metric("aquiline_engine_silent_seconds") is None


async def test_an_engine_that_is_asked_by_others_is_left_in_peace() -> None:
    watched = Watched()
    async with watched.watching():
        for _ in range(5):
            await watched.pass_ms(IDLE_MS - 100)
            assert await watched.decide() == "x"
        assert len(watched.engine.requests) == 5
        watched.engine.let.clear()
        long = asyncio.create_task(watched.decide())
        await watched.pass_ms(5 * IDLE_MS)
        assert len(watched.engine.requests) == 6
        assert watched.metric("aquiline_engine_silent_seconds") == 50
        watched.engine.let.set()
        assert await long == "x"
        assert watched.metric("aquiline_engine_silent_seconds") == 0


async def test_probes_that_fail_open_the_breaker_and_one_that_is_answered_closes_it() -> None:
    watched = Watched(failures=2)
    watched.engine.reason = "engine_broke"
    async with watched.watching():
        await watched.pass_ms(2 * IDLE_MS)
        assert watched.metric("aquiline_engine_left_alone") == 1
        assert await watched.decide() == "engine_open"
        await watched.pass_ms(IDLE_MS)
        assert len(watched.engine.requests) == 3
        assert watched.metric("aquiline_engine_silent_seconds") == 30
        watched.engine.reason = ""
        await watched.pass_ms(IDLE_MS)
        assert watched.metric("aquiline_engine_left_alone") == 0


async def test_a_decision_ends_a_probe_and_finds_the_breaker_free() -> None:
    watched = Watched(failures=1)
    watched.engine.reason = "engine_broke"
    async with watched.watching():
        await watched.pass_ms(IDLE_MS)
        assert watched.metric("aquiline_engine_left_alone") == 1
        watched.engine.let.clear()
        await watched.pass_ms(IDLE_MS)
        hung = watched.engine.requests[-1].rid
        # The breaker is half open and its one call is the probe's: the decisions, two at once, must not be refused for that.
        assert not watched.guarded.available
        watched.engine.reason = ""
        decisions = [asyncio.create_task(watched.decide()) for _ in range(2)]
        await watched.settle()
        assert watched.engine.given_up == [hung]
        watched.engine.let.set()
        assert "x" in await asyncio.gather(*decisions)
        assert watched.guarded.available


@given(st.lists(st.tuples(st.sampled_from(["begin", "end", "hear"]), st.integers(0, 5_000)), max_size=60))
def test_nobody_is_asked_while_a_call_is_under_way_or_before_the_time(events: list[tuple[str, int]]) -> None:
    idleness = Idleness(1_000, answered_ms=0, used_ms=0)
    now_ms = used_ms = answered_ms = calls = 0
    for what, later_ms in events:
        now_ms += later_ms
        if what == "begin":
            idleness.begin(now_ms)
            calls, used_ms = calls + 1, now_ms
        elif what == "end" and calls:
            idleness.end(now_ms)
            calls, used_ms = calls - 1, now_ms
        elif what == "hear":
            idleness.answer(now_ms)
            answered_ms = now_ms
        assert (idleness.due_in_ms(now_ms) == 0) == (calls == 0 and now_ms - used_ms >= 1_000)
        assert idleness.silent_ms(now_ms) == now_ms - answered_ms


def test_a_clock_that_was_set_back_puts_nothing_off() -> None:
    idleness = Idleness(1_000, answered_ms=9_000, used_ms=9_000)
    assert (idleness.due_in_ms(5_000), idleness.silent_ms(5_000)) == (0, 0)
