"""Notes and positions for the tests of this folder."""

from __future__ import annotations

from schemas import Blackout, HeldPosition, Message, Note, Topic, topic_name
from services.core.bus import Record
from tests.unit.fusion.build import MODE, START, SYMBOL

NOTES, POSITIONS = (topic_name(topic, MODE) for topic in (Topic.NOTES, Topic.POSITIONS))


def note(
    text: str = "guidance raised",
    *,
    symbol: str = SYMBOL,
    ts_ms: int = START,
    importance: int = 3,
    source: str = "desk",
    note_id: str | None = None,
    blackout: tuple[int, int] | None = None,
) -> Note:
    return Note(
        schema_version=1,
        run_mode=MODE,
        symbol=symbol,
        source=source,
        ts_ms=ts_ms,
        text=text,
        importance=importance,
        note_id=note_id,
        blackout=None if blackout is None else Blackout(from_ms=blackout[0], until_ms=blackout[1]),
    )


def position(side: str = "long", quantity: float = 100.0, *, symbol: str = SYMBOL, price: float = 99.5, ts_ms: int = START) -> HeldPosition:
    return HeldPosition.model_validate(
        {
            "schema_version": 1,
            "run_mode": MODE,
            "symbol": symbol,
            "side": side,
            "quantity": quantity,
            "average_price": price,
            "ts_ms": ts_ms,
        }
    )


def table_record(offset: int, message: Message, at_ms: int | None = None) -> Record:
    """Return a note or position as a record, appended when it was written unless `at_ms` says when."""
    symbol, ts_ms = str(getattr(message, "symbol")), int(getattr(message, "ts_ms"))  # noqa: B009 - messages share no such field
    topic = NOTES if isinstance(message, Note) else POSITIONS
    return Record(topic, 0, offset, ts_ms if at_ms is None else at_ms, symbol.encode(), message.encode())


def tombstone(offset: int, symbol: str = SYMBOL) -> Record:
    return Record(POSITIONS, 0, offset, START, symbol.encode(), None)
