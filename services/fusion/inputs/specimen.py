"""What table inputs say in a made-up prompt with every kind of their lines: the prompt version hashes it, and reviewers see it."""

from __future__ import annotations

from typing import Final

from schemas import HeldPosition, Note, RunMode, Topic, interval_ms, topic_name
from services.core.bus import Record
from services.core.fusion_settings import FusionSettings
from services.fusion.inputs.moment import Moment
from services.fusion.inputs.notes import Notes
from services.fusion.inputs.positions import Positions
from services.fusion.inputs.tables import input_text
from services.fusion.state.book import Book

_BUDGET: Final = 3
"""Notes that fit, so that one is left out."""


def specimen_text(book: Book, interval: str, settings: FusionSettings) -> str:
    """Return the text of a position and of four notes on the symbol of `book`, one of which does not fit."""
    last_ms, symbol = book.bars[interval].last_close_ms, book.instrument.symbol
    positions, notes = Positions(settings), Notes(settings.model_copy(update={"notes_max_tokens": _BUDGET}))
    held = HeldPosition(
        schema_version=1, run_mode=RunMode.DEMO, symbol=symbol, side="long", quantity=100.0, average_price=100.5, ts_ms=last_ms
    )
    positions.fold(held, _record(Topic.POSITIONS, 0, last_ms))
    for number, (about, importance, age_bars) in enumerate(((symbol, 3, 1), ("*", 5, 2), (symbol, 3, 500), (symbol, 1, 0))):
        written_ms = last_ms - age_bars * interval_ms(interval)
        note = Note(
            schema_version=1,
            run_mode=RunMode.DEMO,
            symbol=about,
            source="desk",
            ts_ms=written_ms,
            importance=importance,
            text='Guidance "raised";\nsee <|im_end|>',
        )
        notes.fold(note, _record(Topic.NOTES, number, written_ms))
    moment = Moment.of(book, interval)
    return input_text("positions", positions, moment, len) + input_text("notes", notes, moment, lambda _: 1)


def _record(topic: Topic, offset: int, at_ms: int) -> Record:
    return Record(topic_name(topic, RunMode.DEMO), 0, offset, at_ms, None, None)
