"""Until when a signal may leave, and a limit on the caller's clock for what is awaited: real, or virtual in backtests and tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.core.clock import Clock
from services.core.fusion_settings import FusionSettings
from services.fusion.deliver.acknowledgements import SkewMeter
from services.fusion.inputs.tables import Tables
from services.fusion.state.book import Book
from services.fusion.state.triggers import Trigger


@asynccontextmanager
async def until(clock: Clock, at_ms: int) -> AsyncIterator[None]:
    """Raise TimeoutError in the body once `clock` has reached `at_ms`."""
    async with asyncio.timeout(None) as timeout:

        async def expire() -> None:
            await clock.sleep_until(at_ms)
            timeout.reschedule(asyncio.get_running_loop().time())

        task = asyncio.create_task(expire())
        try:
            yield
        finally:
            task.cancel()


class Deadline:
    """Until when the signal of one trigger may leave, as the book is when asked."""

    def __init__(self, settings: FusionSettings, book: Book, trigger: Trigger, *, skew: SkewMeter, tables: Tables) -> None:
        """`skew` is measured anew with each acknowledgement; `tables` have the blackouts."""
        self._settings = settings
        self._book = book
        self._trigger = trigger
        self._skew = skew
        self._tables = tables

    def hand_over_ms(self) -> int:
        """Return the last moment on the worker's clock to hand the signal over; records and validity are timed by the broker's."""
        # A record that was folded before it was appended shows that the worker's clock is behind, also before any acknowledgement.
        skew_ms = min(self._skew.skew_ms, self._trigger.made_ms - self._trigger.origin.ts_ms)
        return self.valid_until_ms() - self._settings.delivery_reserve_ms + skew_ms

    def valid_until_ms(self) -> int:
        """Return the last instant to open a position, on the broker's clock: as-of plus the validity.

        It is capped at the session's close and at the beginning of a blackout.
        """
        market = self._book.market_ref
        assert market is not None  # noqa: S101 - a trigger comes from a folded record
        until_ms = market.ts_ms + self._settings.entry_validity(self._trigger.lane.interval)
        blackout_ms = self._tables.next_rejection_ms(self._trigger.lane.symbol, market.ts_ms)
        if blackout_ms is not None:
            until_ms = min(until_ms, blackout_ms)
        close_ms = self._book.calendar.session_close_ms(market.ts_event_ms)
        # Event time and record time are apart in recorded data: what counts is how long the session still lasts after as-of.
        return until_ms if close_ms is None else min(until_ms, market.ts_ms + close_ms - market.ts_event_ms)
