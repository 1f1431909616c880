"""The prefix cache on a real Redis, from a process that is short of processor time."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest

from deploy.local import LocalRedis
from services.core.clock import SystemClock
from services.core.redis import connect
from services.core.settings import RedisSettings
from services.fusion.prompt.blocks import Run
from services.fusion.prompt.store import PrefixStore

pytestmark = pytest.mark.integration

KEY = b"k" * 16
BUDGET_MS = 50


async def test_a_loop_that_is_held_up_for_longer_than_the_budget_loses_no_write(redis_server: LocalRedis, unique: str) -> None:
    """A worker that rebuilds holds its loop for longer: the write is late for no fault of Redis, and no decision waits for it."""
    settings = RedisSettings(url=redis_server.url, budget_ms=BUDGET_MS, breaker_failures=1)
    store = PrefixStore(connect(settings), settings, SystemClock(), unique)
    store.put({KEY: Run.of([np.arange(10, dtype=np.int32)])})
    while store._writes:
        time.sleep(1.2 * BUDGET_MS / 1000)  # noqa: ASYNC251 - holds the loop up, as computing does
        await asyncio.sleep(0)
    (run,) = await store.get([(KEY, 1)])
    assert run is not None
    assert run.ids.tolist() == list(range(10))
    await store.close()
