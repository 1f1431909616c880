"""Which prefixes the engine has been sent: for each symbol and interval the epochs whose whole prefix it has computed.

It may have evicted one since: only its answers tell.
"""

from __future__ import annotations

from services.fusion.state.book import Book


class WarmPrefixes:
    """The prefixes that the engine should hold."""

    def __init__(self) -> None:
        """Start with none."""
        self._sent: dict[tuple[str, str], set[tuple[int, int]]] = {}

    def add(self, symbol: str, interval: str, index: int, version: int) -> None:
        """Note that the engine has computed the prefix of epoch `index`, as the book's `version` has it."""
        sent = self._sent.setdefault((symbol, interval), set())
        # One epoch ahead is all that is ever sent.
        sent.intersection_update({(index - 1, version), (index, version), (index + 1, version)})
        sent.add((index, version))

    def holds(self, book: Book, interval: str) -> bool:
        """Return whether the engine should hold the prefix of the book's current epoch."""
        sent = self._sent.get((book.instrument.symbol, interval))
        return sent is not None and current_epoch(book, interval) in sent

    def forget(self, symbol: str) -> None:
        """Forget the prefixes of `symbol`, whose book is gone."""
        for key in [key for key in self._sent if key[0] == symbol]:
            del self._sent[key]

    def clear(self) -> None:
        """Forget all: the engine that held them is gone."""
        self._sent.clear()


def current_epoch(book: Book, interval: str) -> tuple[int, int]:
    """Return the epoch of the last closed bar, and the version of the book's bars."""
    return book.epochs.boundaries(interval).index(book.bars[interval].last_close_ms), book.epochs.version
