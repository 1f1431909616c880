"""Records that came before their instrument was published: they are dead-lettered, and folded once the instrument is known.

A restarted worker, which reads the instruments first, folds them from the log. Both must show the same bars in the same prompt.
"""

from __future__ import annotations

from typing import Final

from services.core.bus import Record

_MAX_RECORDS: Final = 20_000
"""About 10 MB. Beyond it the symbol that has waited longest is dropped: strangers may send as many symbols as they like."""


class EarlyRecords:
    """Records of unknown symbols, in order, by partition and symbol."""

    def __init__(self) -> None:
        """Start empty."""
        self._records: dict[tuple[int, str], list[Record]] = {}
        self._count = 0

    def add(self, symbol: str, record: Record) -> None:
        """Keep a record of an unknown symbol."""
        self._records.setdefault((record.partition, symbol), []).append(record)
        self._count += 1
        while self._count > _MAX_RECORDS:
            self.pop(*next(iter(self._records)))

    def pop(self, partition: int, symbol: str) -> list[Record]:
        """Return a symbol's records, oldest first, and forget them."""
        records = self._records.pop((partition, symbol), [])
        self._count -= len(records)
        return records

    def drop(self, partition: int) -> None:
        """Forget all records of `partition`."""
        for key in [key for key in self._records if key[0] == partition]:
            self.pop(*key)
