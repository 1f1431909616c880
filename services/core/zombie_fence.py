"""Fences zombies: a worker that was paused for longer than its group's session publishes nothing more.

A paused process (a suspended machine, a long stall) wakes up in the middle of its calls and does not know yet that another worker
owns its partitions and has gone on. What it published then would set a lane's as-of back, so it ends and has to be restarted.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Final

from services.core.bus import BusError
from services.core.settings import BusSettings

_SESSION_SHARE: Final = 0.75
"""Share of the session timeout: the last heartbeat may have been sent a quarter of it before the pause."""
_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class FencedError(BusError):
    """The worker was paused for so long that others may own its partitions."""


class ZombieFence:
    """Measures the time between two signs of life."""

    def __init__(self, limit_s: float, now_s: Callable[[], float]) -> None:
        """Fence once `limit_s` seconds of the clock `now_s` lie between two signs of life; infinite for never."""
        self._limit_s = limit_s
        self._now_s = now_s
        self._last_s: float | None = None
        self._paused_s: float | None = None

    @classmethod
    def of(cls, bus: BusSettings) -> ZombieFence:
        """Return the fence of a group member. An in-process bus pauses together with its members and needs none."""
        limit_s = math.inf if bus.url == "memory://" else _SESSION_SHARE * bus.session_timeout_ms / 1000
        # Where there is one, a clock that keeps running while the machine is suspended.
        return cls(limit_s, lambda: time.clock_gettime(_CLOCK))

    async def keep(self) -> None:
        """Give signs of life for ever; raise FencedError when the process was paused. Cancel to end."""
        while math.isfinite(self._limit_s):
            self.alive()
            await asyncio.sleep(self._limit_s / 10)

    def alive(self) -> None:
        """Give a sign of life; raise FencedError when the last one was too long ago."""
        self.check()
        self._last_s = self._now_s()

    def check(self) -> None:
        """Raise FencedError once the process was paused for too long; this never ends. A producer calls it before it writes."""
        if self._paused_s is None and self._last_s is not None and self._now_s() - self._last_s > self._limit_s:
            self._paused_s = self._now_s() - self._last_s
        if self._paused_s is not None:
            raise FencedError(
                f"this worker was paused for {self._paused_s:.1f} s; after {self._limit_s:.1f} s (bus.session_timeout_ms) others may own "
                "its partitions, so it publishes nothing more and ends. Restart it, and find what paused it (a suspended machine, no CPU "
                "time)"
            )
