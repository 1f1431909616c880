"""The books of one partition: each record is folded, filtered or dead-lettered with a reason. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from schemas import Candle, MarketFeatures
from services.core.bus import Record
from services.core.decode import Refused, decoder
from services.core.folding.bar_fold import REFUSALS, Fold
from services.core.folding.candles import CandleRules, KnownInstruments, new_book, refuse_future
from services.core.folding.disposition import Disposition, RecordResult
from services.market.book import Book, Plan
from services.market.own_features import FeatureFunction


@dataclass(frozen=True, slots=True)
class CandleResult(RecordResult):
    """The disposition of a record, and the features to publish for it."""

    features: Sequence[MarketFeatures] = ()


class Books:
    """One partition's books, by symbol."""

    def __init__(self, instruments: KnownInstruments, rules: CandleRules, plan: Plan, own: FeatureFunction | None = None) -> None:
        """Start empty; `plan` must have passed `check_plan`; `own` computes features of the user's."""
        self._own = own
        self._instruments = instruments
        self._rules = rules
        self._decode = decoder(Candle, rules.modes, rules.max_bytes)
        self._plan = plan
        self._books: dict[str, Book] = {}

    def take(self, record: Record) -> CandleResult:
        """Fold a record. A refused record changes nothing, so that it may be tried again."""
        candle = self._candle(record)
        if isinstance(candle, Refused):
            return CandleResult(Disposition.DEAD_LETTERED, refused=candle)
        book = self._book(candle.symbol)
        if isinstance(book, Refused):
            return CandleResult(Disposition.DEAD_LETTERED, refused=book)
        fold, detail, out = book.take(candle, record.offset)
        if fold in REFUSALS:
            return CandleResult(Disposition.DEAD_LETTERED, refused=Refused(REFUSALS[fold], detail))
        unknown = candle.unknown_fields()
        if fold is None:
            return CandleResult(Disposition.FILTERED, unknown_fields=unknown)
        if fold is Fold.DUPLICATE:
            return CandleResult(Disposition.DUPLICATE, unknown_fields=unknown)
        return CandleResult(Disposition.FOLDED, features=out, unknown_fields=unknown)

    def take_again(self, record: Record, result: CandleResult) -> CandleResult:
        """Fold a record once more. Only refused records come again here, and those have changed nothing."""
        del result
        return self.take(record)

    def needed_from(self) -> int | None:
        """Return the offset from which reading the log again restores these books, None when they are empty."""
        needed = [offset for book in self._books.values() if (offset := book.needed_from()) is not None]
        return min(needed, default=None)

    def _candle(self, record: Record) -> Candle | Refused:
        candle = self._decode(record)
        if isinstance(candle, Refused):
            return candle
        return refuse_future(candle, record, self._rules.max_skew_ms) or candle

    def _book(self, symbol: str) -> Book | Refused:
        if (known := self._books.get(symbol)) is not None:
            return known
        restatements = self._instruments.restatements(symbol)
        book = new_book(self._instruments, symbol, lambda instrument: Book(instrument, restatements, self._plan, self._own))
        if not isinstance(book, Refused):
            self._books[symbol] = book
        return book
