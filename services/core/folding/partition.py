"""One assigned partition: its books, how far its records are folded and acknowledged, and what to commit for it.

A commit's metadata names the offset from which the log has to be read to restore the books. Unlike the watermark of fusion
(`services/fusion/deliver/watermark.py`), records finish here in batches and in order: nothing here waits for a model, so a queue of
acknowledgements does, and there are no outcomes to find again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Generic

from services.core.bus import Committed, Position
from services.core.folding.disposition import Books, D

Acknowledged = asyncio.Future[list[Position]]
_PREFIX: Final = "rebuild_from="


class Partition(Generic[D]):
    """Records are finished once all that they made is acknowledged; commits never pass the first that is not."""

    def __init__(self, books: Books[D], next_offset: int) -> None:
        """Start with the record at `next_offset` as the next one to come."""
        self.books = books
        self.next_offset = next_offset
        self.to_commit: Committed | None = None
        """What to commit, None when that is committed already."""
        self._finished = next_offset
        self._unfinished: deque[tuple[Committed, Acknowledged]] = deque()

    @property
    def finished(self) -> int:
        """Return the offset below which all is finished."""
        return self._finished

    def begin(self, next_offset: int, acknowledged: Acknowledged) -> None:
        """Note that the records before `next_offset` are in the books, and are finished once `acknowledged` is done."""
        # Books change while these records wait and may drop what restoring them as they are now needs.
        needed = self.books.needed_from()
        rebuild_from = next_offset if needed is None else min(needed, next_offset)
        self.next_offset = next_offset
        self._unfinished.append((Committed(next_offset, f"{_PREFIX}{rebuild_from}"), acknowledged))

    def skip_to(self, offset: int) -> None:
        """Note that the log has no record from the next offset to before `offset`, as after an aborted transaction."""
        if offset > self.next_offset:
            empty: Acknowledged = asyncio.get_running_loop().create_future()
            empty.set_result([])
            self.begin(offset, empty)

    def advance(self) -> None:
        """Pass what is finished at the head; raise BusError when the broker did not take what a record made."""
        while self._unfinished and self._unfinished[0][1].done():
            self._unfinished[0][1].result()
            self.to_commit = self._unfinished.popleft()[0]
            self._finished = self.to_commit.offset

    async def settle(self, at_most: int = 0) -> None:
        """Wait, oldest first, until at most `at_most` offsets are unfinished; raise BusError when the broker did not take one's."""
        self.advance()
        while self.next_offset - self._finished > at_most:
            # Unlike awaiting it, this leaves the acknowledgements alone when the wait is cancelled.
            await asyncio.wait([self._unfinished[0][1]])
            self.advance()

    def committed(self, commit: Committed) -> None:
        """Note that `commit` was committed."""
        if self.to_commit == commit:
            self.to_commit = None


def rebuild_from(committed: Committed) -> int:
    """Return the offset from which to read the log again; 0 when the commit does not say, as after a reset by hand."""
    text = committed.metadata.removeprefix(_PREFIX)
    return int(text) if text.isdecimal() else 0
