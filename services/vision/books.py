"""One partition's books, and what becomes of each record of it: folded, ignored or put aside with a reason. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from schemas import Candle, DeadLetterReason, Instrument, InstrumentEvent, RunMode, interval_ms
from services.core.bus import Record
from services.core.calendar import CalendarError
from services.core.decode import Refused, decode
from services.vision.book import ChartBook, Fold, Refusal, Window, WindowRules

_REFUSALS: Final = {Fold.CONFLICT: DeadLetterReason.CONFLICT, Fold.LATE: DeadLetterReason.LATE}


class Outcome(StrEnum):
    """What became of a record; every record has exactly one."""

    FOLDED = "folded"
    DUPLICATE = "duplicate"
    FILTERED = "filtered"
    DEAD_LETTERED = "dead_lettered"


class Known(Protocol):
    """What is known of symbols: `services.core.instruments.Instruments`."""

    def get(self, symbol: str) -> Instrument | None:
        """Return the instrument, None when it is not known."""
        ...

    def splits(self, symbol: str) -> Sequence[InstrumentEvent]:
        """Return the symbol's splits in order of time."""
        ...


@dataclass(frozen=True, slots=True)
class Rules:
    """What a service takes: the settings that matter here, resolved. `now_ms` is its clock."""

    modes: frozenset[RunMode]
    intervals: frozenset[str]
    stride: int
    max_bytes: int
    max_skew_ms: int
    window: WindowRules
    now_ms: Callable[[], int]


@dataclass(frozen=True, slots=True)
class Due:
    """A window that is due, or why it is not drawn."""

    symbol: str
    interval: str
    window: Window | Refusal


@dataclass(frozen=True, slots=True)
class Dealt:
    """What became of a record, the window that it made due if any, and why it is put aside if it is."""

    outcome: Outcome
    due: Due | None = None
    refused: Refused | None = None
    unknown_fields: int = 0


class Books:
    """The books of one partition."""

    def __init__(self, known: Known, rules: Rules) -> None:
        """Start without books; `known` is asked of each symbol on its first bar, and of its splits on each window."""
        self._known = known
        self._rules = rules
        self._books: dict[tuple[str, str], ChartBook] = {}

    def take(self, record: Record) -> Dealt:
        """Fold a record."""
        candle = decode(Candle, record, self._rules.modes, self._rules.max_bytes)
        if isinstance(candle, Refused):
            return Dealt(Outcome.DEAD_LETTERED, refused=candle)
        unknown = candle.unknown_fields()
        if not candle.closed or candle.interval not in self._rules.intervals:
            return Dealt(Outcome.FILTERED, unknown_fields=unknown)
        book = self._book(candle)
        if isinstance(book, Refused):
            return Dealt(Outcome.DEAD_LETTERED, refused=book)
        fold = book.take(candle, record.offset)
        if fold is Fold.DUPLICATE:
            return Dealt(Outcome.DUPLICATE, unknown_fields=unknown)
        if fold in _REFUSALS:
            detail = f"bar of {candle.symbol} {candle.interval} closing at {candle.ts_close_ms}, revision {candle.revision}"
            return Dealt(Outcome.DEAD_LETTERED, refused=Refused(_REFUSALS[fold], detail))
        return Dealt(Outcome.FOLDED, due=self._due(candle, book), unknown_fields=unknown)

    def again(self, due: Due) -> Due:
        """Return the window once more, after splits have arrived that were not known before."""
        return self._drawn(due.symbol, due.interval)

    def needed_from(self) -> int | None:
        """Return the offset from which reading the log again restores these books, None when they are empty."""
        return min((offset for book in self._books.values() if (offset := book.needed_from()) is not None), default=None)

    def _due(self, candle: Candle, book: ChartBook) -> Due | None:
        """Return the newest window when it is its slot's turn: a correction of an older bar redraws it too."""
        if (book.window_end_ms - 1) // interval_ms(candle.interval) % self._rules.stride:
            return None
        return self._drawn(candle.symbol, candle.interval)

    def _drawn(self, symbol: str, interval: str) -> Due:
        return Due(symbol, interval, self._books[symbol, interval].window(self._known.splits(symbol)))

    def _book(self, candle: Candle) -> ChartBook | Refused:
        now_ms = self._rules.now_ms()
        if candle.ts_close_ms > now_ms + self._rules.max_skew_ms:
            return Refused(DeadLetterReason.FUTURE, f"the bar closed at {candle.ts_close_ms}; now is {now_ms}")
        key = candle.symbol, candle.interval
        if (book := self._books.get(key)) is not None:
            return book
        instrument = self._known.get(candle.symbol)
        if instrument is None:
            return Refused(DeadLetterReason.UNKNOWN_INSTRUMENT, f"no instrument {candle.symbol!r} is known; publish it on `instruments`")
        try:
            book = self._books[key] = ChartBook(instrument, candle.interval, self._rules.window)
        except CalendarError as error:
            return Refused(DeadLetterReason.UNKNOWN_INSTRUMENT, str(error))
        return book
