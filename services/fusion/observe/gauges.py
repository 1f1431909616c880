"""Keeps the worker's gauges up to date in a task of its own, so that a broker or engine that hangs does not hide its effects."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

_INTERVAL_S: Final = 0.5


async def refresh_gauges(updates: Sequence[Callable[[], None]]) -> None:
    """Call each of `updates` twice a second, for ever; cancel to end."""
    while True:
        for update in updates:
            update()
        await asyncio.sleep(_INTERVAL_S)
