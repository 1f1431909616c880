"""The fence: a worker that stood still for longer than its group waits for it lets nothing leave any more.

A stopped process (a suspended machine, a long pause) wakes up in the middle of its calls and does not know yet that another worker
owns its partitions and has gone on; what it then published would set a lane's as-of back. It ends instead, and starts anew.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import Final

from services.core.bus import BusError, Headers, Position, Producer
from services.core.settings import BusSettings

_SHARE: Final = 0.75
"""Of the session: the last heartbeat may have left a quarter of it before the worker stood still."""
_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class FencedError(BusError):
    """The worker stood still for so long that others may own its partitions."""


class ZombieFence:
    """Watches over the time from one sign of life to the next."""

    def __init__(self, limit_s: float, now_s: Callable[[], float]) -> None:
        """Fall once `limit_s` seconds on the clock `now_s` lie between two signs of life; infinite for never."""
        self._limit_s = limit_s
        self._now_s = now_s
        self._last_s: float | None = None
        self._stood_s: float | None = None

    @classmethod
    def of(cls, bus: BusSettings) -> ZombieFence:
        """Return the fence of a group's member; a bus inside the process stands still together with its members."""
        limit_s = math.inf if bus.url == "memory://" else _SHARE * bus.session_timeout_ms / 1000
        # A clock that goes on while the machine is suspended, where there is one.
        return cls(limit_s, lambda: time.clock_gettime(_CLOCK))

    async def keep(self) -> None:
        """Give signs of life for ever; raise FencedError when the process has stood still. Cancel to end."""
        while math.isfinite(self._limit_s):
            self.alive()
            await asyncio.sleep(self._limit_s / 10)

    def alive(self) -> None:
        """Give a sign of life; raise FencedError when the last one was too long ago."""
        self.check()
        self._last_s = self._now_s()

    def check(self) -> None:
        """Raise FencedError when the fence has fallen; it never rises again."""
        if self._stood_s is None and self._last_s is not None and self._now_s() - self._last_s > self._limit_s:
            self._stood_s = self._now_s() - self._last_s
        if self._stood_s is not None:
            raise FencedError(
                f"this worker stood still for {self._stood_s:.1f} s, and after {self._limit_s:.1f} s (bus.session_timeout_ms) others "
                "may own its partitions; it publishes nothing more and ends. Start it again, and look for what stopped it (suspended, "
                "or without CPU time)"
            )


class FencedProducer:
    """A producer that takes nothing once the fence has fallen. See `Producer` for what each method promises."""

    def __init__(self, inner: Producer, fence: ZombieFence) -> None:
        """Send through `inner`."""
        self._inner = inner
        self._fence = fence

    async def send(
        self,
        topic: str,
        *,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = (),
        timestamp_ms: int | None = None,
    ) -> Awaitable[Position]:
        """Hand a record over; raise FencedError."""
        self._fence.check()
        return await self._inner.send(topic, key=key, value=value, headers=headers, timestamp_ms=timestamp_ms)

    async def flush(self) -> None:
        """Return once every record handed over is acknowledged or has failed."""
        await self._inner.flush()

    async def close(self) -> None:
        """Flush and close."""
        await self._inner.close()
