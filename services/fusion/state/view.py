"""A book as hooks see it: copies of its closed bars, so that no hook can change a book or see more than a rebuilt one holds."""

from __future__ import annotations

import numpy as np

from services.fusion.state.bars import Bars
from services.fusion.state.book import Book
from services.strategy.hooks import BarView, BookView


def view_of(book: Book, interval: str) -> BookView:
    """Return the view of `book` at the last closed bar of `interval`."""
    bars = {name: _bars(held) for name, held in book.bars.items()}
    return BookView(book.instrument.symbol, interval, bars, dict(book.bars[interval].features))


def _bars(bars: Bars) -> BarView:
    # How much more than `keep` is held depends on when the book was begun; what a hook sees must not.
    first = max(0, len(bars) - bars.keep)
    prices = (np.array(column[first:]) for column in (bars.open, bars.high, bars.low, bars.close, bars.volume))
    return BarView(np.array(bars.ts_close[first:]), *prices)
