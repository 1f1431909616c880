"""Notes of a file for a backtest on candles: a JSON object a line, with the fields of a note (docs/messages.md)."""

from __future__ import annotations

from pathlib import Path

import orjson
from pydantic import ValidationError

from schemas import Note
from services.backtest.feed import MODE
from services.core.settings import SettingsError


def read_notes(file: Path) -> tuple[list[Note], bytes]:
    """Return the notes in order of time, and the file's bytes; raise SettingsError naming the line that is none.

    `schema_version` and `run_mode` need not be given.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise SettingsError(f"--notes {file} cannot be read: {error.strerror}") from error
    lines = [(number, line) for number, line in enumerate(content.splitlines(), start=1) if line.strip()]
    return sorted((_note(file, number, line) for number, line in lines), key=lambda note: note.ts_ms), content


def _note(file: Path, number: int, line: bytes) -> Note:
    try:
        given = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise SettingsError(f"--notes {file}, line {number}: not JSON: {error}") from error
    if not isinstance(given, dict):
        raise SettingsError(f"--notes {file}, line {number}: expected a JSON object with symbol, source, ts_ms and text")
    try:
        return Note.decode(orjson.dumps({"schema_version": 1, **given, "run_mode": MODE.value}))
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'note'}: {one['msg']}" for one in error.errors(include_url=False))
        raise SettingsError(f"--notes {file}, line {number}: {wrong}") from error
