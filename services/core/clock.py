"""Time as a dependency: the system's clock for services, a virtual one for replay, backtest and tests."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from typing import Protocol


class Clock(Protocol):
    """Wall time, a way to wait for it, and one to measure spans with."""

    def now_ms(self) -> int:
        """Return milliseconds since 1970-01-01T00:00Z."""
        ...

    async def sleep_until(self, at_ms: int) -> None:
        """Return once `now_ms()` is at least `at_ms`."""
        ...

    def elapsed_s(self) -> float:
        """Return seconds since some moment, on a clock that is never set back: what took how long."""
        ...


class SystemClock:
    """The machine's wall clock."""

    def now_ms(self) -> int:
        """Return the machine's wall time in milliseconds."""
        return time.time_ns() // 1_000_000

    async def sleep_until(self, at_ms: int) -> None:
        """Return once the wall clock has reached `at_ms`, also when it is set back while waiting."""
        while (left_ms := at_ms - self.now_ms()) > 0:  # noqa: ASYNC110 - no event tells of passing time
            await asyncio.sleep(left_ms / 1000)

    def elapsed_s(self) -> float:
        """Return seconds on the machine's finest steady clock."""
        return time.perf_counter()


class VirtualClock:
    """A clock that moves only when told to; waiters wake in order of their times."""

    def __init__(self, now_ms: int = 0) -> None:
        """Start at `now_ms`."""
        self._now_ms = now_ms
        self._order = itertools.count()
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []

    def now_ms(self) -> int:
        """Return the virtual time in milliseconds."""
        return self._now_ms

    async def sleep_until(self, at_ms: int) -> None:
        """Return once `advance_to` has reached `at_ms`."""
        if at_ms <= self._now_ms:
            return
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (at_ms, next(self._order), future))
        await future

    def elapsed_s(self) -> float:
        """Return the virtual time in seconds: what happens between two moves of it takes no time."""
        return self._now_ms / 1000

    def next_wake_ms(self) -> int | None:
        """Return the earliest time that a task waits for, or None."""
        while self._waiting and self._waiting[0][2].done():
            heapq.heappop(self._waiting)
        return self._waiting[0][0] if self._waiting else None

    def advance_to(self, at_ms: int) -> None:
        """Move to `at_ms`, waking everybody who waits for a time up to it; raise ValueError when that is in the past."""
        if at_ms < self._now_ms:
            raise ValueError(f"the virtual clock is at {self._now_ms} ms and cannot go back to {at_ms} ms")
        self._now_ms = at_ms
        while self._waiting and self._waiting[0][0] <= at_ms:
            _, _, future = heapq.heappop(self._waiting)
            if not future.done():
                future.set_result(None)
