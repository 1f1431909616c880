"""Prefixes go out again before a session opens, in time, once, and only where the worker's clock is the market's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from schemas import RunMode, Topic, topic_name
from services.core.bus.memory import MemoryBus
from services.core.clock import VirtualClock
from services.core.fusion_settings import FusionSettings
from services.core.settings import Settings
from services.core.topic_admin import ensure_topics
from services.fusion.prompt.prewarm import follows_opens
from tests.unit.fusion_week.desk import PARTITIONS, Desk, Told, TreeEngine
from tests.unit.fusion_week.feed import CALENDAR, HISTORY_DAYS, HOUR, MINUTE, MODE, OPENS, SYMBOLS, Kinds, instrument, week

CLOSE_MS = max(session[1] for day in HISTORY_DAYS if (session := CALENDAR.session_on(day)) is not None)


@asynccontextmanager
async def closed_market(fusion: FusionSettings) -> AsyncIterator[tuple[Desk, VirtualClock, TreeEngine]]:
    """Yield a desk that has taken over after Friday's close, before an engine that has forgotten everything since."""
    history = week(3, HISTORY_DAYS, Kinds())
    clock = VirtualClock(history[0].at_ms - HOUR)
    bus = MemoryBus(clock)
    await ensure_topics(await bus.admin(), MODE, PARTITIONS)
    producer = await bus.producer(client_id="week")
    for symbol in SYMBOLS:
        await producer.send(topic_name(Topic.INSTRUMENTS, MODE), key=symbol.encode(), value=instrument(symbol).encode())
    for fed in history:
        clock.advance_to(fed.at_ms)
        await producer.send(fed.topic, key=fed.key, value=fed.value)
    clock.advance_to(CLOSE_MS + HOUR)
    engine = TreeEngine()
    desk = Desk(bus, Settings(run_mode=MODE, fusion=fusion), clock, engine, Told())
    await desk.start({})
    engine.flush()
    try:
        yield desk, clock, engine
    finally:
        await desk.kill()


async def advance(clock: VirtualClock, desk: Desk, to_ms: int) -> None:
    """Move the clock, letting everybody who wakes on the way do what is due."""
    while (at_ms := clock.next_wake_ms()) is not None and at_ms <= to_ms:
        clock.advance_to(at_ms)
        await asyncio.sleep(0)
        await desk.prewarmer.idle()
    clock.advance_to(to_ms)


async def test_every_symbols_prefix_goes_out_ten_minutes_before_the_open_and_once() -> None:
    async with closed_market(FusionSettings(slow_window_bars=12)) as (desk, clock, engine):
        await advance(clock, desk, OPENS[0] - 10 * MINUTE - 1)
        assert engine.tree.tokens == 0
        await advance(clock, desk, OPENS[0] - 10 * MINUTE)
        held = engine.tree.tokens
        assert held > len(SYMBOLS) * 8_000
        calls = desk.prewarmer.count.calls
        await advance(clock, desk, OPENS[0])
        assert (held, calls) == (engine.tree.tokens, desk.prewarmer.count.calls)


async def test_what_went_out_is_what_the_first_prompt_of_the_session_starts_with() -> None:
    async with closed_market(FusionSettings(slow_window_bars=12)) as (desk, clock, engine):
        await advance(clock, desk, OPENS[0])
        for book in desk.books:
            opening = desk.prompts.opening(book, "1m", OPENS[0])
            assert opening is not None, "a weekend should end every epoch"
            ids = await desk.prompts.ids_of(opening[0])
            assert engine.tree.peek(ids) == ids.size


async def test_zero_sends_nothing_before_an_open() -> None:
    async with closed_market(FusionSettings(slow_window_bars=12, prewarm_before_open_ms=0)) as (desk, clock, engine):
        await advance(clock, desk, OPENS[0] + MINUTE)
        assert engine.tree.tokens == 0


@pytest.mark.parametrize(
    ("run_mode", "follows"), [(RunMode.LIVE, True), (RunMode.SHADOW, True), (RunMode.REPLAY, False), (RunMode.DEMO, False)]
)
def test_only_live_and_shadow_follow_the_wall_clock(run_mode: RunMode, follows: bool) -> None:  # noqa: FBT001 - a case
    assert follows_opens(Settings(run_mode=run_mode)) is follows
