"""All inputs that workers read as tables, as one registry: what a prompt and the guard ask of them goes through here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar

import structlog

from schemas import Action, DeadLetterReason, Message, OffsetRef, Topic, topic_name
from services.core import metrics
from services.core.bus import Record
from services.core.decode import Refused, accepted_modes, decoder
from services.core.settings import Settings
from services.fusion.inputs.notes import Notes
from services.fusion.inputs.positions import Positions
from services.fusion.inputs.table_input import CountTokens, TableInput
from services.fusion.state.book import Book
from services.fusion.state.rejection import Rejection

TABLE_INPUTS: Final[tuple[type[TableInput[Any]], ...]] = (Positions, Notes)
"""In the order in which the tail shows them. A further input is its module and a line here."""

TABLE_TOPICS: Final[tuple[Topic, ...]] = tuple(one.topic for one in TABLE_INPUTS)

T = TypeVar("T", bound=TableInput[Any])

_log = structlog.get_logger()


class Tables:
    """The state of every table input, fed with records in the order of each topic."""

    def __init__(self, settings: Settings) -> None:
        """Start empty."""
        modes, max_bytes = accepted_modes(settings.run_mode), settings.bus.max_record_bytes
        self._max_skew_ms = settings.fusion.max_skew_ms
        self._inputs = {topic_name(one.topic, settings.run_mode): one(settings.fusion) for one in TABLE_INPUTS}
        self._decoders: dict[str, Callable[[Record], Any]] = {
            name: decoder(one.model, modes, max_bytes) for name, one in self._inputs.items()
        }
        self.on_folded: Callable[[Message, Record], None] | None = None
        """Called with each message that was taken in, and its record."""

    def __iter__(self) -> Iterator[TableInput[Any]]:
        return iter(self._inputs.values())

    def of(self, kind: type[T]) -> T:
        """Return the input of this kind."""
        return next(one for one in self._inputs.values() if isinstance(one, kind))

    def begin(self, ends: Mapping[str, int]) -> None:
        """Take in that each topic has been read up to its end in `ends`."""
        for name, end_offset in ends.items():
            self._inputs[name].begin(end_offset)

    def take(self, record: Record) -> Refused | None:
        """Fold a record; return why it is refused, which is logged and counted: a dead letter of every worker would say it many times."""
        table = self._inputs[record.topic]
        refused = self._folded(table, record)
        metrics.TABLE_RECORDS.labels(table.topic.value, "folded" if refused is None else refused.reason.value).inc()
        if refused is not None:
            _log.warning(
                "table_record_refused",
                topic=record.topic,
                offset=record.offset,
                reason=refused.reason.value,
                detail=refused.detail,
            )
        return refused

    def _folded(self, table: TableInput[Any], record: Record) -> Refused | None:
        if record.value is None and table.remove((record.key or b"").decode(errors="replace"), record):
            return None
        message = self._decoders[record.topic](record)
        if isinstance(message, Refused):
            return message
        if message.model_extra:
            metrics.UNKNOWN_FIELDS.inc(len(message.model_extra))
        ahead_ms = table.event_ms(message) - record.timestamp_ms
        if ahead_ms > self._max_skew_ms:
            return Refused(DeadLetterReason.FUTURE, f"ts_ms is {ahead_ms} ms after its record")
        table.fold(message, record)
        if self.on_folded is not None:
            self.on_folded(message, record)
        return None

    def as_of(self, symbol: str) -> dict[str, OffsetRef] | None:
        """Return the last record of each input that concerns `symbol`, None when there is none."""
        return {one.name: ref for one in self if (ref := one.ref(symbol)) is not None} or None

    def text(self, book: Book, interval: str, tokens: CountTokens) -> str:
        """Return what the tail says of all inputs."""
        return "".join(one.text(book, interval, tokens) for one in self)

    def rejection(self, symbol: str, now_ms: int) -> Rejection | None:
        """Return why nothing is decided on `symbol` now."""
        return next((found for one in self if (found := one.rejection(symbol, now_ms)) is not None), None)

    def rejection_of(self, symbol: str, action: Action, now_ms: int) -> Rejection | None:
        """Return why `action` is not published now."""
        found = (one.rejection_of(symbol, action) for one in self)
        return self.rejection(symbol, now_ms) or next((one for one in found if one is not None), None)

    def next_rejection_ms(self, symbol: str, now_ms: int) -> int | None:
        """Return when decisions on `symbol` will be stopped next, as far as is known."""
        return min((at_ms for one in self if (at_ms := one.next_rejection_ms(symbol, now_ms)) is not None), default=None)
