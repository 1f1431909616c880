"""Positions, if they are reported: the tail shows the one in the symbol, and an `exit` of none is stopped."""

from __future__ import annotations

from typing import ClassVar

from schemas import Action, HeldPosition
from services.core.bus import Record
from services.core.fusion_settings import FusionSettings
from services.fusion.inputs.moment import Moment
from services.fusion.inputs.table_input import CountTokens, LatestBySymbol
from services.fusion.state.rejection import Rejection


class Positions(LatestBySymbol[HeldPosition]):
    """The positions of all symbols."""

    message = HeldPosition
    heading: ClassVar[str | None] = ""

    def __init__(self, settings: FusionSettings) -> None:
        """Start without positions, and unreported."""
        super().__init__(settings)
        self.reported = False
        """Whether the topic has ever held a record: before it does, nobody can say that a position is missing."""
        self._unknown: set[str] = set()
        """Symbols whose last record could not be used."""

    def begin(self, end_offset: int) -> None:
        """Note whether the topic has ever held a record, as compaction may have dropped all of them."""
        self.reported = self.reported or end_offset > 0

    def fold(self, message: HeldPosition, record: Record) -> None:
        """Take a position in; a quantity of 0 is none."""
        if not message.quantity:
            self.remove(message.symbol, record)
            return
        self.reported = True
        self._unknown.discard(message.symbol)
        super().fold(message, record)

    def remove(self, symbol: str, record: Record) -> bool:
        """Take in that there is no position in `symbol` any more."""
        self.reported = True
        self._unknown.discard(symbol)
        return super().remove(symbol, record)

    def refused(self, symbol: str) -> None:
        """Take in that nobody can say what is held in `symbol`."""
        self._unknown.add(symbol)
        super().refused(symbol)

    def lines(self, moment: Moment, tokens: CountTokens) -> list[str]:
        """Return the line of the position in the symbol, nothing without one."""
        del tokens
        held = self.latest.get(moment.instrument.symbol)
        if held is None:
            return []
        # Reported before a split and not since: quantity and price are on another scale than the bars.
        split = any(held.ts_ms < event.effective_ms for event in moment.splits)
        size = (
            ", its size not reported since a split"
            if split
            else f" {held.quantity:.12g} at {held.average_price:.{moment.decimals}f} {moment.instrument.currency}"
        )
        return [f"Position held: {held.side}{size}. exit closes it, hold keeps it."]

    def rejection_of(self, symbol: str, action: Action) -> Rejection | None:
        """Return why an `exit` is not published: positions are reported, and there is none in `symbol`."""
        if action is not Action.EXIT or not self.reported or symbol in self.latest or symbol in self._unknown:
            return None
        return Rejection("no_position", f"exit, and the topic of positions has none in {symbol}")
