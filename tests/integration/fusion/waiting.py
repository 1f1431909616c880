"""Waiting on conditions: nothing here sleeps for a fixed time and hopes."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable

PATIENCE_S = 120.0
_LOOK_S = 0.01


async def until(
    holds: Callable[[], bool] | Callable[[], Awaitable[bool]],
    what: str,
    *,
    patience_s: float = PATIENCE_S,
    told: Callable[[], object] = lambda: "",
) -> None:
    """Return once `holds` does; raise AssertionError naming `what`, and what `told` says, after `patience_s` seconds."""
    try:
        async with asyncio.timeout(patience_s):
            while True:
                found = holds()
                if await found if inspect.isawaitable(found) else found:
                    return
                await asyncio.sleep(_LOOK_S)
    except TimeoutError:
        raise AssertionError(f"waited {patience_s:.0f} s in vain for: {what}. {told()}") from None
