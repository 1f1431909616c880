"""One assigned partition: its books, and how far its records are dealt with and acknowledged."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

from services.core.bus import Committed, Position
from services.market.books import Books

Ack = asyncio.Future[Position]
_PREFIX: Final = "rebuild_from="


class Partition:
    """A record is finished once all that it made is acknowledged; commits never pass the first that is not."""

    def __init__(self, books: Books, next_offset: int) -> None:
        """Start with the record at `next_offset` as the next one to come."""
        self.books = books
        self.next_offset = next_offset
        self._done = next_offset
        self._committed = next_offset
        self._pending: deque[tuple[int, Sequence[Ack]]] = deque()

    def __len__(self) -> int:
        """Return how many records are unfinished."""
        return len(self._pending)

    def begin(self, offset: int, acks: Sequence[Ack]) -> None:
        """Note that the record at `offset`, the one after the last, is finished once all of `acks` have come."""
        self.next_offset = offset + 1
        self._pending.append((offset, acks))

    async def settle(self, at_most: int = 0) -> None:
        """Wait, oldest first, until at most `at_most` records are unfinished; raise BusError when one was not taken."""
        while len(self._pending) > at_most:
            await asyncio.gather(*self._pending[0][1])
            self.advance()

    def advance(self) -> None:
        """Pass every record at the head that is finished; raise BusError when the broker did not take what one made."""
        while self._pending and all(ack.done() for ack in self._pending[0][1]):
            for ack in self._pending[0][1]:
                ack.result()
            self._done = self._pending.popleft()[0] + 1

    def to_commit(self) -> Committed | None:
        """Return what to commit, None when that is committed already. Its text says from where a rebuild has to read."""
        if self._done <= self._committed:
            return None
        needed = self.books.needed_from()
        return Committed(self._done, f"{_PREFIX}{self._done if needed is None else min(needed, self._done)}")

    def committed(self, offset: int) -> None:
        """Note that `offset` was committed."""
        self._committed = offset


def rebuild_from(committed: Committed) -> int:
    """Return the offset from which to read the log again; 0 when the commit does not say, as after a reset by hand."""
    text = committed.metadata.removeprefix(_PREFIX)
    return int(text) if text.isdecimal() else 0
