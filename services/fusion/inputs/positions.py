"""Positions, if they are reported: the tail shows the one in the symbol, and an `exit` of none is stopped."""

from __future__ import annotations

from typing import ClassVar

from schemas import Action, HeldPosition, InstrumentEvent, OffsetRef, Topic
from services.core.bus import Record
from services.core.fusion_settings import FusionSettings
from services.fusion.inputs.table_input import CountTokens, TableInput
from services.fusion.state.book import Book, offset_ref
from services.fusion.state.rejection import Rejection


class Positions(TableInput[HeldPosition]):
    """The positions of all symbols."""

    name: ClassVar[str] = "positions"
    topic: ClassVar[Topic] = Topic.POSITIONS
    model = HeldPosition

    def __init__(self, settings: FusionSettings) -> None:
        """Start without positions, and unreported."""
        super().__init__(settings)
        self._held: dict[str, HeldPosition] = {}
        self._refs: dict[str, OffsetRef] = {}
        self.reported = False
        """Whether the topic has ever held a record: before it does, nobody can say that a position is missing."""

    def begin(self, end_offset: int) -> None:
        """Note whether the topic has ever held a record, as compaction may have dropped all of them."""
        self.reported = self.reported or end_offset > 0

    def event_ms(self, message: HeldPosition) -> int:
        """Return since when the position is this one."""
        return message.ts_ms

    def fold(self, message: HeldPosition, record: Record) -> None:
        """Take a position in; a quantity of 0 is none."""
        self.reported = True
        if message.quantity:
            self._held[message.symbol] = message
            self._refs[message.symbol] = offset_ref(record, message.ts_ms)
        else:
            self._forget(message.symbol)

    def remove(self, symbol: str, record: Record) -> bool:
        """Take in that there is no position in `symbol` any more."""
        del record
        self.reported = True
        self._forget(symbol)
        return True

    def ref(self, symbol: str) -> OffsetRef | None:
        """Return the record of the position in `symbol`; None without one, as compaction drops the records that say so."""
        return self._refs.get(symbol)

    def text(self, book: Book, interval: str, tokens: CountTokens) -> str:
        """Return the line of the position in the book's symbol, nothing without one."""
        del tokens
        held = self._held.get(book.instrument.symbol)
        if held is None:
            return ""
        # Reported before a split and not since: quantity and price are on another scale than the bars.
        last_ms = book.bars[interval].last_close_ms
        split = any(isinstance(event, InstrumentEvent) and held.ts_ms < event.effective_ms <= last_ms for event in book.applied)
        size = (
            ", its size not reported since a split"
            if split
            else f" {held.quantity:.12g} at {held.average_price:.{book.decimals}f} {book.instrument.currency}"
        )
        return f"Position held: {held.side}{size}. exit closes it, hold keeps it.\n"

    def rejection_of(self, symbol: str, action: Action) -> Rejection | None:
        """Return why an `exit` is not published: positions are reported, and there is none in `symbol`."""
        if action is not Action.EXIT or not self.reported or symbol in self._held:
            return None
        return Rejection("no_position", f"exit, and the topic of positions has none in {symbol}")

    def _forget(self, symbol: str) -> None:
        self._held.pop(symbol, None)
        self._refs.pop(symbol, None)
