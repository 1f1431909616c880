"""Cancels open signals when what they rest on changes (a revised bar, a split), or when an operator halts."""

from __future__ import annotations

from schemas import CancelReason, Control, HaltState, InstrumentEvent
from services.fusion.decide.control import GLOBAL
from services.fusion.deliver.publisher import Publisher
from services.fusion.prompt.prewarm import Prewarmer
from services.fusion.state.books import Books
from services.fusion.state.triggers import TriggerPolicy


class Withdrawals:
    """Cancels through the publisher, and has rewritten prefixes sent ahead before they are asked for."""

    def __init__(self, publisher: Publisher, books: Books, policy: TriggerPolicy, prewarmer: Prewarmer) -> None:
        """Rescale `books` and `policy` on a split."""
        self._publisher = publisher
        self._books = books
        self._policy = policy
        self._prewarmer = prewarmer

    def bars_changed(self, symbol: str, reason: CancelReason) -> None:
        """Cancel what rested on bars of `symbol` that have been revised or rescaled."""
        self._prewarmer.warm_current([symbol])
        self._publisher.cancel_open(symbol, reason, "bars that it rested on have been revised or rescaled")

    def on_split(self, event: InstrumentEvent) -> None:
        """Rescale the symbol's book, and cancel its open signals when bars in it were rescaled."""
        book = self._books.get(event.symbol)
        if book is not None and book.add_split(event):
            self._policy.rescale(event.symbol, event.ratio)
            self._prewarmer.warm_current([event.symbol])
            self._publisher.cancel_open(event.symbol, CancelReason.SPLIT, f"split {event.ratio}:1 at {event.effective_ms}")

    def on_control(self, control: Control) -> None:
        """Cancel the open signals of what an operator has halted."""
        if control.state is HaltState.HALTED:
            symbol = None if control.scope == GLOBAL else control.scope
            self._publisher.cancel_open(symbol, CancelReason.HALTED, control.reason)
