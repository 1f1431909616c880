"""The moment that a prompt is about, as table inputs see it: plain values, so that no input can change a book."""

from __future__ import annotations

from dataclasses import dataclass

from schemas import Instrument, InstrumentEvent
from services.fusion.state.book import Book
from services.fusion.state.local_time import day_number, local


@dataclass(frozen=True, slots=True)
class Moment:
    """One symbol at the close of the last closed bar of an interval."""

    instrument: Instrument
    interval: str
    last_close_ms: int
    """When the last closed bar closed."""
    last_close: float
    decimals: int
    """Digits after the point of the instrument's prices."""
    zone: str
    """The time zone of its exchange."""
    splits: tuple[InstrumentEvent, ...]
    """That are in effect, in the order in which they were applied."""
    day_zero_ms: int | None
    """Where a backtest hides dates: the day that counts as 0."""

    @classmethod
    def of(cls, book: Book, interval: str) -> Moment:
        """Return the moment of `book`, which has a closed bar of `interval`."""
        bars = book.bars[interval]
        at_ms = bars.last_close_ms
        splits = tuple(one for one in book.applied if isinstance(one, InstrumentEvent) and one.effective_ms <= at_ms)
        zone = book.calendar.zone
        return cls(book.instrument, interval, at_ms, float(bars.close[-1]), book.decimals, zone, splits, book.day_zero_ms)

    def when(self, at_ms: int) -> str:
        """Return a time as the exchange's clock shows it, with the date where it is another day's."""
        at, now = local(at_ms, self.zone), local(self.last_close_ms, self.zone)
        if at.date() == now.date():
            return f"{at:%H:%M}"
        day = day_number(at.date(), self.zone, self.day_zero_ms)
        return f"{at:%a %Y-%m-%d %H:%M}" if day is None else f"day {day} {at:%H:%M}"
