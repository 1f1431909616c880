"""One assigned partition: its books, how far its records are done, and what to commit for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from services.core.bus import Committed
from services.vision.books import Books

_PREFIX: Final = "rebuild_from="


@dataclass(slots=True)
class Partition:
    """All records before `next_offset` are done; those before `committed` are known to be so by the broker."""

    books: Books
    next_offset: int
    committed: int

    def to_commit(self) -> Committed | None:
        """Return what to commit, None when that is committed already. Its text says from where a rebuild has to read."""
        if self.next_offset <= self.committed:
            return None
        needed = self.books.needed_from()
        return Committed(self.next_offset, f"{_PREFIX}{self.next_offset if needed is None else min(needed, self.next_offset)}")


def rebuild_from(committed: Committed) -> int:
    """Return the offset from which to read the log again; 0 when the commit does not say, as after a reset by hand."""
    text = committed.metadata.removeprefix(_PREFIX)
    return int(text) if text.isdecimal() else 0
