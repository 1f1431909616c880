"""The books of one partition: each record is folded, filtered or dead-lettered with a reason. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from schemas import Candle
from services.core.bus import Record
from services.core.decode import Refused, decoder
from services.core.folding.bar_fold import REFUSALS, Fold
from services.core.folding.candles import CandleRules, KnownInstruments, new_book, refuse_future
from services.core.folding.disposition import Disposition, RecordResult
from services.vision.book import ChartBook, Refusal, Window, WindowRules


@dataclass(frozen=True, slots=True)
class WindowsDue:
    """Which bars make a window due (settings `vision.intervals` and `vision.stride`), and when it is drawn."""

    intervals: frozenset[str]
    stride: int
    window: WindowRules


@dataclass(frozen=True, slots=True)
class Due:
    """A window that is due, or why it is not drawn."""

    symbol: str
    interval: str
    window: Window | Refusal


@dataclass(frozen=True, slots=True)
class CandleResult(RecordResult):
    """The disposition of a record, and the window that it made due, if any."""

    due: Due | None = None

    @property
    def may_change_on_refresh(self) -> bool:
        """Return whether an instrument or a split that was published just before the record may change this."""
        return self.has_unknown_instrument or (self.due is not None and self.due.window is Refusal.SUSPECTED_SPLIT)


class Books:
    """The books of one partition."""

    def __init__(self, known: KnownInstruments, rules: CandleRules, windows: WindowsDue) -> None:
        """Start without books; `known` is read for each symbol's first bar, and for splits and dividends with each window."""
        self._known = known
        self._rules = rules
        self._decode = decoder(Candle, rules.modes, rules.max_bytes)
        self._windows = windows
        self._books: dict[tuple[str, str], ChartBook] = {}

    def take(self, record: Record) -> CandleResult:
        """Fold a record."""
        candle = self._decode(record)
        if isinstance(candle, Refused):
            return CandleResult(Disposition.DEAD_LETTERED, refused=candle)
        unknown = candle.unknown_fields()
        if not candle.closed or candle.interval not in self._windows.intervals:
            return CandleResult(Disposition.FILTERED, unknown_fields=unknown)
        book = refuse_future(candle, record, self._rules.max_skew_ms) or self._book(candle.symbol, candle.interval)
        if isinstance(book, Refused):
            return CandleResult(Disposition.DEAD_LETTERED, refused=book)
        fold = book.take(candle, record.offset)
        if fold is Fold.DUPLICATE:
            return CandleResult(Disposition.DUPLICATE, unknown_fields=unknown)
        if fold in REFUSALS:
            detail = f"bar of {candle.symbol} {candle.interval} closing at {candle.ts_close_ms}, revision {candle.revision}"
            return CandleResult(Disposition.DEAD_LETTERED, refused=Refused(REFUSALS[fold], detail))
        return CandleResult(Disposition.FOLDED, due=self._due(candle, book), unknown_fields=unknown)

    def take_again(self, record: Record, result: CandleResult) -> CandleResult:
        """Take the last record once more: a refused one from the start, a folded one by drawing its window again."""
        if result.due is None:
            return self.take(record)
        return replace(result, due=self._drawn(result.due.symbol, result.due.interval))

    def needed_from(self) -> int | None:
        """Return the offset from which reading the log again restores these books, None when they are empty."""
        return min((offset for book in self._books.values() if (offset := book.needed_from()) is not None), default=None)

    def _due(self, candle: Candle, book: ChartBook) -> Due | None:
        """Return the newest window when the stride selects its last bar; a correction of an older bar redraws it."""
        if not book.on_stride(self._windows.stride):
            return None
        return self._drawn(candle.symbol, candle.interval)

    def _drawn(self, symbol: str, interval: str) -> Due:
        return Due(symbol, interval, self._books[symbol, interval].window(self._known.restatements(symbol)))

    def _book(self, symbol: str, interval: str) -> ChartBook | Refused:
        if (known := self._books.get((symbol, interval))) is not None:
            return known
        book = new_book(self._known, symbol, lambda instrument: ChartBook(instrument, interval, self._windows.window))
        if not isinstance(book, Refused):
            self._books[symbol, interval] = book
        return book
