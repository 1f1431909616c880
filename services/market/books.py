"""The books of one partition, and what becomes of each of its records: folded, ignored, or put aside with a reason. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

from schemas import Candle, DeadLetterReason, Instrument, InstrumentEvent, MarketFeatures, RunMode
from services.core.bus import Record
from services.core.calendar import CalendarError
from services.core.decode import Refused, decode
from services.market.book import Book, Plan
from services.market.series import Fold

_REFUSALS: Final = {Fold.CONFLICT: DeadLetterReason.CONFLICT, Fold.LATE: DeadLetterReason.LATE}


class Outcome(StrEnum):
    """What became of a record."""

    FOLDED = "folded"
    DUPLICATE = "duplicate"
    FILTERED = "filtered"
    DEAD_LETTERED = "dead_lettered"


class Dealt(NamedTuple):
    """How a record was dealt with: what to publish for it, why it was refused, and how many of its fields were unknown."""

    outcome: Outcome
    features: Sequence[MarketFeatures] = ()
    refused: Refused | None = None
    unknown_fields: int = 0


class KnownInstruments(Protocol):
    """Where instruments and their splits are looked up."""

    def get(self, symbol: str) -> Instrument | None:
        """Return the instrument, None when it is not known."""
        ...

    def splits(self, symbol: str) -> Sequence[InstrumentEvent]:
        """Return the symbol's splits in order of time: a view that shows later ones too."""
        ...


@dataclass(frozen=True, slots=True)
class Rules:
    """What is taken, and what is built from it: a bar may be at most `max_skew_ms` ahead of its record's timestamp."""

    modes: frozenset[RunMode]
    max_bytes: int
    max_skew_ms: int
    plan: Plan


class Books:
    """One partition's books, by symbol."""

    def __init__(self, instruments: KnownInstruments, rules: Rules) -> None:
        """Start empty."""
        self._instruments = instruments
        self._rules = rules
        self._books: dict[str, Book] = {}

    def take(self, record: Record) -> Dealt:
        """Deal with a record. One that is refused changes nothing, so that it may be tried again."""
        candle = self._decode(record)
        if isinstance(candle, Refused):
            return Dealt(Outcome.DEAD_LETTERED, refused=candle)
        book = self._book(candle.symbol)
        if isinstance(book, Refused):
            return Dealt(Outcome.DEAD_LETTERED, refused=book)
        fold, detail, out = book.take(candle, record.offset)
        if fold in _REFUSALS:
            return Dealt(Outcome.DEAD_LETTERED, refused=Refused(_REFUSALS[fold], detail))
        unknown = candle.unknown_fields()
        if fold is None:
            return Dealt(Outcome.FILTERED, unknown_fields=unknown)
        if fold is Fold.DUPLICATE:
            return Dealt(Outcome.DUPLICATE, unknown_fields=unknown)
        return Dealt(Outcome.FOLDED, features=out, unknown_fields=unknown)

    def needed_from(self) -> int | None:
        """Return the offset from which reading the log again restores these books, None when they are empty."""
        needed = [offset for book in self._books.values() if (offset := book.needed_from()) is not None]
        return min(needed, default=None)

    def _decode(self, record: Record) -> Candle | Refused:
        candle = decode(Candle, record, self._rules.modes, self._rules.max_bytes)
        if isinstance(candle, Refused):
            return candle
        # Measured against the record's own timestamp, not a clock, so that a rebuild decides as the first run did.
        ahead_ms = (candle.ts_close_ms if candle.closed else candle.ts_open_ms) - record.timestamp_ms
        if ahead_ms > self._rules.max_skew_ms:
            return Refused(
                DeadLetterReason.FUTURE, f"the bar is {ahead_ms} ms ahead of its record; taken in, it would make honest bars late"
            )
        return candle

    def _book(self, symbol: str) -> Book | Refused:
        if (book := self._books.get(symbol)) is not None:
            return book
        instrument = self._instruments.get(symbol)
        if instrument is None:
            return Refused(DeadLetterReason.UNKNOWN_INSTRUMENT, f"no instrument {symbol!r} is known; publish it on `instruments`")
        try:
            book = self._books[symbol] = Book(instrument, self._instruments.splits(symbol), self._rules.plan)
        except CalendarError as error:
            return Refused(DeadLetterReason.UNKNOWN_INSTRUMENT, str(error))
        return book
