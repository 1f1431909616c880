"""Cancels open signals when what they rest on changes (a revised bar, a split), when an operator halts, or when a blackout begins."""

from __future__ import annotations

from schemas import ALL_SYMBOLS, CancelReason, Control, HaltState, Message, Note
from services.core.bus import Record
from services.core.operator_commands import GLOBAL
from services.fusion.deliver.publisher import Publisher
from services.fusion.prompt.prewarm import Prewarmer


class CancelOnChange:
    """Cancels through the publisher, and has rewritten prefixes sent ahead before they are asked for."""

    def __init__(self, publisher: Publisher, prewarmer: Prewarmer) -> None:
        """Cancel through `publisher`, and send prefixes through `prewarmer`."""
        self._publisher = publisher
        self._prewarmer = prewarmer

    def bars_changed(self, symbol: str, reason: CancelReason) -> None:
        """Cancel what rested on bars of `symbol` that have been revised or rescaled."""
        self._prewarmer.warm_current([symbol])
        self._publisher.open_signals.cancel(symbol, reason, "bars that it rested on have been revised or rescaled")

    def on_control(self, control: Control) -> None:
        """Cancel the open signals of what an operator has halted."""
        if control.state is HaltState.HALTED:
            symbol = None if control.scope == GLOBAL else control.scope
            self._publisher.open_signals.cancel(symbol, CancelReason.HALTED, control.reason)

    def on_table_record(self, message: Message, record: Record) -> None:
        """Cancel the open signals of what a note blacks out at once; a signal is valid no longer than until a known blackout begins."""
        if not isinstance(message, Note) or message.blackout is None:
            return
        if message.blackout.from_ms <= record.timestamp_ms < message.blackout.until_ms:
            symbol = None if message.symbol == ALL_SYMBOLS else message.symbol
            self._publisher.open_signals.cancel(symbol, CancelReason.HALTED, f"blackout announced by {message.source}")
