"""The example producer of notes writes what the contract says."""

from __future__ import annotations

import json

import pytest
from notes_producer import MAX_CHARACTERS, record

from schemas import Note
from schemas.note import MAX_NOTE_CHARACTERS

NOW_MS = 1_795_187_000_000


def test_a_line_becomes_a_note_with_its_symbol_as_key() -> None:
    key, value = record('{"symbol": "AAPL.XNAS", "source": "newswire", "importance": 4, "text": "Guidance raised."}', NOW_MS)
    made = Note.decode(value)
    assert (key, made.symbol, made.source, made.importance, made.text) == (b"AAPL.XNAS", "AAPL.XNAS", "newswire", 4, "Guidance raised.")
    assert (made.ts_ms, made.run_mode.value) == (NOW_MS, "live")


def test_what_a_line_says_more_of_a_note_is_kept() -> None:
    given = {
        "symbol": "*",
        "text": "FOMC",
        "ts_ms": NOW_MS - 5,
        "note_id": "fomc",
        "blackout": {"from_ms": NOW_MS, "until_ms": NOW_MS + 60_000},
    }
    made = Note.decode(record(json.dumps(given), NOW_MS, "demo")[1])
    assert (made.source, made.ts_ms, made.note_id, made.run_mode.value) == ("desk", NOW_MS - 5, "fomc", "demo")
    assert made.blackout is not None
    assert made.blackout.until_ms == NOW_MS + 60_000


def test_a_long_text_is_cut_to_what_workers_take() -> None:
    assert MAX_CHARACTERS == MAX_NOTE_CHARACTERS
    assert len(Note.decode(record(json.dumps({"symbol": "*", "text": "x" * 2_000}), NOW_MS)[1]).text) == MAX_NOTE_CHARACTERS


@pytest.mark.parametrize("line", ["", "no JSON", "[]", "{}", '{"symbol": "*"}', '{"text": "x"}', '{"symbol": 1, "text": "x"}'])
def test_a_line_that_is_no_note_is_refused(line: str) -> None:
    with pytest.raises((AttributeError, KeyError, TypeError, ValueError)):
        record(line, NOW_MS)
