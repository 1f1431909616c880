"""Checks that every book of candles makes first: the candle is not in the future and its instrument is known. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from schemas import Candle, DeadLetterReason, Instrument, Restatement, RunMode
from services.core.bus import Record
from services.core.calendar import CalendarError
from services.core.decode import Refused

B = TypeVar("B")


class KnownInstruments(Protocol):
    """Looks up instruments and their splits; implemented by `services.core.instruments.Instruments`."""

    def get(self, symbol: str) -> Instrument | None:
        """Return the instrument, None when it is not known."""
        ...

    def restatements(self, symbol: str) -> Sequence[Restatement]:
        """Return the symbol's splits and dividends in order of time: a view that later ones appear in."""
        ...


@dataclass(frozen=True, slots=True)
class CandleRules:
    """What is accepted: a bar may be at most `max_skew_ms` ahead of its record's timestamp, and a record have `max_bytes`."""

    modes: tuple[RunMode, ...]
    max_bytes: int
    max_skew_ms: int


def refuse_future(candle: Candle, record: Record, max_skew_ms: int) -> Refused | None:
    """Return why a candle that is too far ahead of its record is refused, None when it is not.

    Measured against the record's own timestamp, not a clock, so that a rebuild decides as the first run did.
    """
    ahead_ms = (candle.ts_close_ms if candle.closed else candle.ts_open_ms) - record.timestamp_ms
    if ahead_ms <= max_skew_ms:
        return None
    return Refused(DeadLetterReason.FUTURE, f"the bar is {ahead_ms} ms ahead of its record; taken in, it would make honest bars late")


def new_book(known: KnownInstruments, symbol: str, make: Callable[[Instrument], B]) -> B | Refused:
    """Return the book that `make` makes of the symbol's instrument, or why there is none: `make` may raise CalendarError."""
    instrument = known.get(symbol)
    if instrument is None:
        return Refused(DeadLetterReason.UNKNOWN_INSTRUMENT, f"no instrument {symbol!r} is known; publish it on `instruments`")
    try:
        return make(instrument)
    except CalendarError as error:
        return Refused(DeadLetterReason.UNKNOWN_INSTRUMENT, str(error))
