"""Reads an audit trail: a file with one record a line, or a time range of the audit topic."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple
from uuid import UUID

import orjson
from pydantic import ValidationError

from schemas import AuditRecord, RunMode, Topic, is_intact, topic_name
from services.core.bus import Bus
from services.core.bus.topic_reader import TimeRange, read_within
from services.core.errors import ServiceError
from services.core.exported_log import LogFileError

_ID_LETTERS: Final = 40


class AuditLine(NamedTuple):
    """The bytes of one audit record, and where they are: `demo-audit.jsonl, line 12`."""

    where: str
    value: bytes


class AuditEntry(NamedTuple):
    """A readable audit record, and where it is."""

    where: str
    record: AuditRecord


@dataclass(frozen=True, slots=True)
class AuditTrail:
    """The readable records of an audit trail, and a sentence for each damaged one."""

    name: str
    lines: Sequence[AuditLine]
    entries: Sequence[AuditEntry]
    damaged: Sequence[str]

    def one(self, trigger_id: str) -> AuditEntry:
        """Return the record whose trigger_id or signal_id begins with `trigger_id`, the last of several of one trigger."""
        wanted = trigger_id.strip().lower()
        found: dict[UUID, AuditEntry] = {
            entry.record.trigger_id: entry
            for entry in self.entries
            if str(entry.record.trigger_id).startswith(wanted) or str(entry.record.signal_id).startswith(wanted)
        }
        if len(found) != 1:
            count = "no record has" if not found else f"{len(found)} records have"
            raise ServiceError(f"{self.name}: {count} a trigger_id or signal_id that begins with {trigger_id!r}; give the id of one record")
        return next(iter(found.values()))


def write_lines(file: Path, lines: Iterable[bytes]) -> None:
    """Write records unchanged, one a line; raise OSError."""
    file.write_bytes(b"".join(line + b"\n" for line in lines))


def read_trail_file(file: Path) -> AuditTrail:
    """Return the trail in `file`; raise LogFileError when there is no such file."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise LogFileError(f"audit file {str(file)!r} cannot be read: {error.strerror}") from error
    lines = (AuditLine(f"{file.name}, line {number}", line) for number, line in enumerate(content.splitlines(), 1) if line.strip())
    return _trail(file.name, list(lines))


async def read_trail_topic(bus: Bus, run_mode: RunMode, times: TimeRange) -> AuditTrail:
    """Return the audit records that were appended within `times`; raise BusError."""
    topic = topic_name(Topic.SIGNAL_AUDIT, run_mode)
    reader = await bus.reader(client_id="aquiline-replay")
    try:
        lines = [
            AuditLine(f"{topic}[{record.partition}] offset {record.offset}", record.value or b"")
            async for record in read_within(bus, reader, topic, times)
        ]
    finally:
        await reader.close()
    return _trail(topic, lines)


def _trail(name: str, lines: Sequence[AuditLine]) -> AuditTrail:
    entries: list[AuditEntry] = []
    damaged: list[str] = []
    for where, value in lines:
        try:
            record = AuditRecord.decode(value)
            intact = is_intact(value)
        except (ValidationError, orjson.JSONDecodeError) as error:
            damaged.append(f"{where}{_of_trigger(value)}: not a valid audit record: {_first_problem(error)}")
            continue
        if intact:
            entries.append(AuditEntry(where, record))
        else:
            damaged.append(f"{where} (trigger {record.trigger_id}): damaged: its checksum does not match its content")
    return AuditTrail(name, lines, entries, damaged)


def _of_trigger(value: bytes) -> str:
    """Return the trigger id of an invalid record, as far as it can be read."""
    try:
        return f" (trigger {str(orjson.loads(value)['trigger_id'])[:_ID_LETTERS]!r})"
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return ""


def _first_problem(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    problem = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, problem['loc'])) or 'record'}: {problem['msg']}"
