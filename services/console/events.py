"""The events that pages follow: one bounded log that every client reads at its own pace, each from its own position.

A client that falls so far behind that its position has been evicted is told to load the state again. It holds nothing here, so that a
slow one costs the others nothing.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Iterator
from typing import Final, NamedTuple

MAX_EVENTS: Final = 20_000
MAX_BYTES: Final = 16_777_216
_MAX_IN_FRAME: Final = 1_000


class Event(NamedTuple):
    """One event: its kind, its JSON, and the symbol that alone it concerns ('' for all)."""

    kind: str
    data: bytes
    symbol: str = ""


class Frame(NamedTuple):
    """Events for one client, and the position after them; `resync` when some that it missed are gone."""

    position: int
    events: list[Event]
    resync: bool = False


class EventLog:
    """The newest events, numbered from 1. Ids carry a name of this process, so that those of an earlier one are not mistaken for ours."""

    def __init__(self, max_events: int = MAX_EVENTS, max_bytes: int = MAX_BYTES) -> None:
        """Hold at most that many events and bytes."""
        self._boot = secrets.token_hex(4)
        self._events: deque[Event] = deque()
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._bytes = 0
        self._changed = asyncio.Event()
        self.last = 0
        """The number of the last event."""
        self.closed = False

    def append(self, event: Event) -> None:
        """Add an event; `wake` hands it to those who wait."""
        self._events.append(event)
        self._bytes += len(event.data)
        self.last += 1
        while len(self._events) > self._max_events or self._bytes > self._max_bytes:
            self._bytes -= len(self._events.popleft().data)

    def wake(self) -> None:
        """Wake every client that waits for events."""
        self._changed.set()
        self._changed = asyncio.Event()

    def close(self) -> None:
        """End every client's stream."""
        self.closed = True
        self.wake()

    def id_of(self, position: int) -> str:
        """Return the id that a client sends to go on after `position`."""
        return f"{self._boot}-{position}"

    def position_of(self, event_id: str | None) -> int | None:
        """Return the position that an id names; None for none, or one of another process."""
        boot, _, number = (event_id or "").partition("-")
        if boot != self._boot or not number.isdecimal() or len(number) > 18:  # noqa: PLR2004 - digits of any count there is
            return None
        return min(int(number), self.last)

    def after(self, position: int, symbol: str) -> Frame:
        """Return what follows `position` for a client that looks at `symbol` ('' for none), at most a frame of it."""
        first = self.last - len(self._events)
        if position < first:
            return Frame(self.last, [], resync=True)
        until = min(self.last, position + _MAX_IN_FRAME)
        wanted = [one for one in self._between(position - first, until - first) if one.symbol in {"", symbol}]
        return Frame(until, wanted)

    async def wait(self, position: int, timeout_s: float) -> None:
        """Return once there are events after `position`, the log is closed, or the time is over."""
        if self.last > position or self.closed:
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            return

    def _between(self, start: int, stop: int) -> Iterator[Event]:
        # A deque finds its middle slowly: from the end, where clients are, it is quick.
        back = len(self._events)
        newest = reversed(self._events)
        for _ in range(back - stop):
            next(newest)
        return reversed([next(newest) for _ in range(stop - start)])
