"""One alarm, moved as often as the lanes ask: wakes the worker when the next wait for vision features ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from services.core.clock import Clock


class Alarm:
    """Calls `wake` once the clock has reached what `set` said last."""

    def __init__(self, clock: Clock, wake: Callable[[], None]) -> None:
        """Nothing is set yet."""
        self._clock = clock
        self._wake = wake
        self._task: asyncio.Task[None] | None = None
        self._at_ms: int | None = None

    def set(self, at_ms: int | None) -> None:
        """Wake at `at_ms` in place of what was set before; never when None."""
        if at_ms == self._at_ms and self._task is not None and not self._task.done():
            return
        self.stop()
        self._at_ms = at_ms
        self._task = asyncio.create_task(self._sleep(at_ms), name="wake") if at_ms is not None else None

    def stop(self) -> None:
        """Wake no more."""
        if self._task is not None:
            self._task.cancel()

    async def _sleep(self, at_ms: int) -> None:
        await self._clock.sleep_until(at_ms)
        self._task = None
        self._wake()
