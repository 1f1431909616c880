"""An exported log: the records that prompts are built from, one JSON line each, after a header with the settings that shape prompts.

Each line carries a checksum, so that a damaged one is found even when no prompt shows it.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, Self, cast

import orjson
from pydantic import ValidationError

from schemas import RunMode
from services.core.bus import Record
from services.core.errors import ServiceError
from services.core.fusion_settings import FusionSettings
from services.core.settings import BusSettings, EngineSettings, Settings

_FORMAT: Final = 1
_CHECKSUM: Final = "checksum"
_DIGITS: Final = 16


class LogFileError(ServiceError):
    """A file is not an exported log, or cannot be read to its end."""


@dataclass(frozen=True, slots=True)
class Header:
    """The settings that shaped the prompts, and whether the log holds every record since the topics were created."""

    settings: Settings
    whole: bool
    later_settings: tuple[Settings, ...] = ()
    """The settings of workers that decided on the same log afterwards, with other settings."""


class Line(NamedTuple):
    """One line of a file. `problem` says what is wrong with it; `record` is None when it cannot be read at all."""

    number: int
    record: Record | None
    problem: str | None = None


class LogWriter:
    """Writes an exported log, compressed when its name ends in `.gz`. A context manager; its methods raise OSError."""

    def __init__(self, file: Path, header: Header) -> None:
        """Create or truncate `file`."""
        packed = file.suffix == ".gz"
        self._out: IO[bytes] = cast("IO[bytes]", gzip.GzipFile(file, "wb", compresslevel=6)) if packed else file.open("wb")
        self._out.write(header_line(header))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._out.close()

    def write(self, record: Record) -> None:
        """Add a record."""
        self._out.write(record_line(record))


def header_line(header: Header) -> bytes:
    """Return a log's first line."""
    return _sealed(_header_values(header))


def record_line(record: Record) -> bytes:
    """Return the line of a record."""
    return _sealed(_values(record))


def read_log(file: Path) -> tuple[Header, Iterator[Line]]:
    """Return the header and an iterator of the lines of an exported log; raise LogFileError for another file."""
    lines = _lines(file)
    first = next(lines, None)
    if first is None:
        raise LogFileError(f"{file} is empty; `aquiline replay export` writes exported logs")
    return _header(file, first[1]), (_line(number, line) for number, line in lines)


def _header_values(header: Header) -> dict[str, Any]:
    later = [_settings_values(settings) for settings in header.later_settings]
    return {
        "aquiline_log": _FORMAT,
        "run_mode": header.settings.run_mode.value,
        "whole": header.whole,
        "settings": _settings_values(header.settings),
        **({"later_settings": later} if later else {}),
    }


def _settings_values(settings: Settings) -> dict[str, Any]:
    return {
        "bus": {"max_record_bytes": settings.bus.max_record_bytes},
        # No addresses and no keys: only settings that shape prompts and answers.
        "engine": settings.engine.model_dump(mode="json", include={"kind", "tokenizer_file", "chat_template"}),
        "fusion": settings.fusion.model_dump(mode="json"),
    }


def _values(record: Record) -> dict[str, Any]:
    place = {"topic": record.topic, "partition": record.partition, "offset": record.offset, "timestamp_ms": record.timestamp_ms}
    return {**place, **_bytes("key", record.key), **_bytes("value", record.value)}


def _bytes(name: str, content: bytes | None) -> dict[str, str]:
    if content is None:
        return {}
    try:
        return {name: content.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(content).decode()}


def _sealed(values: dict[str, Any]) -> bytes:
    return orjson.dumps({**values, _CHECKSUM: _checksum(values)}) + b"\n"


def _checksum(values: dict[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(values, option=orjson.OPT_SORT_KEYS)).hexdigest()[:_DIGITS]


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    number = 0
    try:
        with gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                yield number, line
    except (OSError, EOFError, gzip.zlib.error) as error:  # type: ignore[attr-defined]
        told = getattr(error, "strerror", None) or error
        raise LogFileError(f"{file} cannot be read after line {number}: {told}") from error


def _header(file: Path, line: bytes) -> Header:
    try:
        values = orjson.loads(line)
        told = values.pop(_CHECKSUM)
        if values["aquiline_log"] != _FORMAT:
            raise LogFileError(f"{file} is an exported log of format {values['aquiline_log']!r}; this version reads {_FORMAT}")
        if told != _checksum(values):
            raise LogFileError(f"{file}, line 1: the header is damaged: its checksum does not match its content")
        mode = RunMode(values["run_mode"])
        later = tuple(_settings(mode, sections) for sections in values.get("later_settings", ()))
        return Header(_settings(mode, values["settings"]), bool(values["whole"]), later)
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError, ValidationError) as error:
        raise LogFileError(f"{file} has no header of an exported log ({type(error).__name__}: {error})") from error


def _settings(run_mode: RunMode, sections: dict[str, Any]) -> Settings:
    return Settings(
        run_mode=run_mode,
        bus=BusSettings(**sections["bus"]),
        engine=EngineSettings(**sections["engine"]),
        fusion=FusionSettings(**sections["fusion"]),
    )


def _line(number: int, line: bytes) -> Line:
    try:
        values = orjson.loads(line)
        told = values.pop(_CHECKSUM, None)
        place = Record(
            str(values["topic"]),
            int(values["partition"]),
            int(values["offset"]),
            int(values["timestamp_ms"]),
            _content(values, "key"),
            _content(values, "value"),
        )
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError, binascii.Error) as error:
        return Line(number, None, f"the line cannot be read ({type(error).__name__}: {error})")
    if told != _checksum(values):
        return Line(number, place, f"{record_place(place)} is damaged: its checksum does not match its content")
    return Line(number, place)


def record_place(record: Record) -> str:
    """Return a record's topic, partition and offset as text."""
    return f"{record.topic!r}[{record.partition}] offset {record.offset}"


def _content(values: dict[str, Any], name: str) -> bytes | None:
    if (packed := values.get(f"{name}_base64")) is not None:
        return base64.b64decode(packed, validate=True)
    text: str | None = values.get(name)
    return None if text is None else text.encode()
