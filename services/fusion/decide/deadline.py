"""A limit on the caller's clock for what is awaited: real, or virtual in backtests and tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.core.clock import Clock


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
