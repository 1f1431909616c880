"""Plays the week on a virtual clock to two independent workers on one in-process bus."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from schemas import Topic, topic_name
from services.core.bus.memory import MemoryBus
from services.core.clock import VirtualClock
from services.core.fusion_settings import FusionSettings
from services.core.settings import Settings
from services.core.topic_admin import ensure_topics
from tests.unit.fusion_week.desk import PARTITIONS, Desk, Told, TreeEngine
from tests.unit.fusion_week.feed import HISTORY_DAYS, HOUR, MODE, OPENS, PLAYED_DAYS, SPLIT, SYMBOLS, Fed, Kinds, instrument, week

KILLED_MS: Final = OPENS[2] + 2 * HOUR + 17 * 60_000
"""Wednesday, in the middle of a session and of epochs."""
BACK_MS: Final = KILLED_MS + 2 * HOUR


@dataclass
class Played:
    """The week as it went."""

    kinds: Kinds = field(default_factory=Kinds)
    steady: Told = field(default_factory=Told)
    """Reads each record as it comes; its engine forgets everything every night."""
    erratic: Told = field(default_factory=Told)
    """Reads in batches of changing size and order, is killed on Wednesday and comes back two hours later."""


class Play:
    """One run through the week."""

    def __init__(self, seed: int, fusion: FusionSettings) -> None:
        self.settings = Settings(run_mode=MODE, fusion=fusion)
        self.played = Played()
        self._seed = seed
        self._random = np.random.default_rng(seed)
        fed = week(seed, (*HISTORY_DAYS, *PLAYED_DAYS), self.played.kinds)
        self._history = [one for one in fed if one.at_ms < OPENS[0]]
        self._week = fed[len(self._history) :]
        self._clock = VirtualClock(self._history[0].at_ms - HOUR)
        self._bus = MemoryBus(self._clock)
        self._engines = (TreeEngine(), TreeEngine())
        self._steady = self._desk(0)
        self._erratic: Desk | None = self._desk(1)
        self._until_read = 0

    def _desk(self, number: int) -> Desk:
        told = (self.played.steady, self.played.erratic)[number]
        return Desk(self._bus, self.settings, self._clock, self._engines[number], told)

    async def run(self) -> Played:
        """Play the week and return what happened."""
        await ensure_topics(await self._bus.admin(), MODE, PARTITIONS)
        self._producer = await self._bus.producer(client_id="week")
        for symbol in SYMBOLS:
            await self._append(Fed(self._clock.now_ms(), topic_name(Topic.INSTRUMENTS, MODE), symbol.encode(), instrument(symbol).encode()))
        for fed in self._history:
            self._clock.advance_to(fed.at_ms)
            await self._append(fed)
        assert self._erratic is not None
        await self._steady.start({})
        await self._erratic.start({})
        events = topic_name(Topic.INSTRUMENT_EVENTS, MODE)
        split = Fed(SPLIT.effective_ms - 2 * HOUR, events, SPLIT.symbol.encode(), SPLIT.encode())
        for fed in sorted([*self._week, split], key=lambda one: one.at_ms):
            await self._advance(fed.at_ms)
            await self._append(fed)
            if fed.topic == events:
                await asyncio.gather(self._steady.look_up(), self._erratic.look_up())
            await self._steady.read(vision_first=False, most=1)
            await self._read_now_and_then()
        await self._steady.kill()
        await self._erratic.kill()
        return self.played

    async def _append(self, fed: Fed) -> None:
        await (await self._producer.send(fed.topic, key=fed.key, value=fed.value))

    async def _read_now_and_then(self) -> None:
        if self._erratic is None:
            return
        self._until_read -= 1
        if self._until_read <= 0:
            self._until_read = int(self._random.integers(1, 6))
            await self._erratic.read(vision_first=bool(self._random.integers(2)), most=int(self._random.integers(1, 9)))

    async def _advance(self, to_ms: int) -> None:
        """Move the clock to `to_ms`, stopping wherever somebody waits for a time before it."""
        while True:
            now_ms = self._clock.now_ms()
            waits = [self._clock.next_wake_ms(), *self._turns(now_ms)]
            waits += [desk.next_wake_ms() for desk in (self._steady, self._erratic) if desk is not None]
            due = [at for at in waits if at is not None and at <= to_ms]
            if not due:
                break
            at_ms = max(now_ms, min(due))
            self._clock.advance_to(at_ms)
            await self._turn(at_ms)
            await self._settle()
        self._clock.advance_to(to_ms)
        await self._settle()

    def _turns(self, now_ms: int) -> list[int]:
        """Return when something happens to a desk or an engine next."""
        nights = [open_ms - 4 * HOUR for open_ms in OPENS]
        return [at for at in (*nights, KILLED_MS, BACK_MS) if at > now_ms]

    async def _turn(self, at_ms: int) -> None:
        if at_ms in {open_ms - 4 * HOUR for open_ms in OPENS}:
            self._engines[0].flush()
        elif at_ms == KILLED_MS and self._erratic is not None:
            self._committed = await self._erratic.kill()
            self._erratic = None
        elif at_ms == BACK_MS:
            self._erratic = self._desk(1)
            await self._erratic.start(self._committed)

    async def _settle(self) -> None:
        """Let everybody who woke do what is due."""
        await asyncio.sleep(0)
        for desk in (self._steady, self._erratic):
            if desk is not None:
                await desk.prewarmer.idle()
                await desk.dispatch()
