"""All books of a worker, by symbol and by the partition that feeds them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Final, Protocol

from schemas import DeadLetterReason, Instrument, Restatement, SymbolChange, interval_ms
from services.core import metrics
from services.core.bus import Record
from services.core.calendar import CalendarError, SessionCalendar
from services.core.decode import Refused
from services.core.fusion_settings import FusionSettings
from services.fusion.state.book import Book, bars_to_rebuild

_MOST_WIDENINGS: Final = 24
"""A quarter each makes two hundred times the span: enough for weekly sessions, and an end where a calendar does not reach."""


class KnownInstruments(Protocol):
    """Where instruments are looked up: `services.core.instruments.Instruments`."""

    def get(self, symbol: str) -> Instrument | None:
        """Return the instrument, None when it is not known."""
        ...

    def restatements(self, symbol: str) -> Sequence[Restatement]:
        """Return the symbol's splits and dividends in order of time."""
        ...

    def calendars(self) -> set[str]:
        """Return the names of all calendars in use."""
        ...


class Books:
    """Makes a book for each symbol as it appears, up to a limit."""

    def __init__(self, settings: FusionSettings, instruments: KnownInstruments) -> None:
        """Look symbols up in `instruments`."""
        self._settings = settings
        self._instruments = instruments
        self.by_symbol: dict[str, Book] = {}
        """For reading."""
        self._partitions: dict[int, set[str]] = {}

    def get(self, symbol: str) -> Book | None:
        """Return the book of `symbol`, None when it has none."""
        return self.by_symbol.get(symbol)

    def expire(self, change: SymbolChange) -> None:
        """Have the book of a symbol that is replaced expire as one made now would. No prompt shows when an instrument expires."""
        book, instrument = self.get(change.symbol), self._instruments.get(change.symbol)
        if book is not None and instrument is not None:
            book.instrument = book.instrument.model_copy(update={"expiry_ms": instrument.expiry_ms})

    def oldest_shown_ms(self, now_ms: int) -> int:
        """Return from when on bars may show in the prompts of any instrument's symbol, by the calendars in use."""
        oldest_ms = now_ms
        for name in self._instruments.calendars():
            try:
                calendar = SessionCalendar.of(name)
            except CalendarError:
                continue  # no book is made of its symbols
            for interval in self._settings.intervals:
                oldest_ms = min(oldest_ms, _slots_back(calendar, interval, bars_to_rebuild(self._settings, interval), now_ms))
        return oldest_ms

    def get_or_create(self, symbol: str, record: Record) -> Book | Refused:
        """Return the book that a record of `symbol` belongs to, made now when it is new, or why there is none.

        A symbol has one partition: the one with its earliest record. That rule gives the same partition in whatever order partitions are
        rebuilt. A second one comes of producers that hash keys differently; its bars would be missing from the book, or mixed into it.
        """
        book = self.by_symbol.get(symbol)
        if book is not None:
            if book.partition == record.partition:
                return book
            if record.timestamp_ms >= book.since_ms:
                return Refused(
                    DeadLetterReason.WRONG_PARTITION,
                    f"{symbol} came on partition {record.partition} and has partition {book.partition}; have every producer of market "
                    "and vision features use one partitioner",
                )
            self._partitions[book.partition].discard(symbol)
            del self.by_symbol[symbol]
        return self._create(symbol, record)

    def _create(self, symbol: str, record: Record) -> Book | Refused:
        instrument = self._instruments.get(symbol)
        if instrument is None:
            return Refused(DeadLetterReason.UNKNOWN_INSTRUMENT, f"topic 'instruments' has no record of {symbol}; publish one first")
        if len(self.by_symbol) >= self._settings.max_symbols:
            return Refused(
                DeadLetterReason.TOO_MANY_SYMBOLS,
                f"{len(self.by_symbol)} symbols have a book, as many as fusion.max_symbols allows",
            )
        if Decimal(instrument.price_increment) <= 0:
            return Refused(
                DeadLetterReason.UNKNOWN_INSTRUMENT,
                f"the instrument {symbol} cannot be used: its price_increment is {instrument.price_increment} and must be above 0",
            )
        try:
            calendar = SessionCalendar.of(instrument.calendar)
        except CalendarError as error:
            return Refused(DeadLetterReason.UNKNOWN_INSTRUMENT, f"the instrument {symbol} cannot be used: {error}")
        book = self.by_symbol[symbol] = Book(instrument, self._settings, calendar, record.partition, record.timestamp_ms)
        for event in self._instruments.restatements(symbol):
            book.add_restatement(event)
        self._partitions.setdefault(record.partition, set()).add(symbol)
        metrics.SYMBOLS.set(len(self.by_symbol))
        return book

    def symbols(self, partition: int) -> frozenset[str]:
        """Return the symbols that `partition` feeds."""
        return frozenset(self._partitions.get(partition, ()))

    def drop(self, partition: int) -> frozenset[str]:
        """Forget the books of `partition`; return their symbols."""
        symbols = self._partitions.pop(partition, set())
        for symbol in symbols:
            del self.by_symbol[symbol]
        metrics.SYMBOLS.set(len(self.by_symbol))
        return frozenset(symbols)

    def __iter__(self) -> Iterator[Book]:
        return iter(self.by_symbol.values())

    def __len__(self) -> int:
        return len(self.by_symbol)


def _slots_back(calendar: SessionCalendar, interval: str, slots: int, now_ms: int) -> int:
    """Return a time before which `slots` scheduled bars lie between it and `now_ms`, within a quarter of the least such span."""
    span_ms = slots * interval_ms(interval)
    for _ in range(_MOST_WIDENINGS):
        if span_ms >= now_ms or calendar.slots_between(interval, now_ms - span_ms, now_ms) >= slots:
            break
        span_ms += span_ms // 4
    return max(0, now_ms - span_ms)
