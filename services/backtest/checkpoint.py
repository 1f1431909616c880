"""A backtest's folder: its signals, audit and outcomes, one a line, its log, and the checkpoint that a stopped run resumes from.

A checkpoint stores the size of each file. What a killed run wrote after its checkpoint is truncated when the run is resumed; those
instants are played again, with the same result.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, Self

from pydantic import TypeAdapter, ValidationError

from services.backtest.request import BacktestRequest
from services.core.errors import ServiceError

SIGNALS: Final = "signals.jsonl"
AUDIT: Final = "audit.jsonl"
OUTCOMES: Final = "outcomes.jsonl"
LOG: Final = "log.jsonl.gz"
FILES: Final = (SIGNALS, AUDIT, OUTCOMES, LOG)
_CHECKPOINT: Final = "checkpoint.json"
_FORMAT: Final = 1


class RunFolderError(ServiceError):
    """The folder cannot be used; the text says what to do."""


@dataclass(slots=True)
class Checkpoint:
    """The state of a run: `steps` have been played, and their results are in the files up to `sizes`."""

    options: BacktestRequest
    fingerprint: str
    """A hash of data and settings."""
    steps: int = 0
    done: bool = False
    sizes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FILES, 0))
    judges: dict[str, Any] | None = None
    outcomes: dict[str, int] = field(default_factory=dict)
    """Triggers by outcome, those that were not published also by reason."""
    engine: str = ""
    """The engine's name and model."""
    format: int = _FORMAT


_checkpoints: Final = TypeAdapter(Checkpoint)


class RunFolder:
    """The files of one run, open for appending. A context manager."""

    def __init__(self, path: Path, checkpoint: Checkpoint) -> None:
        """Continue from `checkpoint`, truncating what was written after it."""
        self.path = path
        self.checkpoint = checkpoint
        self._files: dict[str, IO[bytes]] = {}
        self._gzip: gzip.GzipFile | None = None
        try:
            path.mkdir(parents=True, exist_ok=True)
            for name in FILES:
                file = self._files[name] = (path / name).open("ab")
                file.truncate(checkpoint.sizes[name])
                file.seek(0, os.SEEK_END)
        except OSError as error:
            raise RunFolderError(f"{error.filename or path} cannot be written: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._gzip is not None:
            self._gzip.close()
        for file in self._files.values():
            file.close()

    def write(self, name: str, values: Iterable[bytes]) -> None:
        """Append messages to one of the files."""
        self._files[name].writelines(value + b"\n" for value in values)

    def write_log(self, lines: Iterable[bytes]) -> None:
        """Append to the compressed log."""
        if self._gzip is None:
            self._gzip = gzip.GzipFile(fileobj=self._files[LOG], mode="wb", compresslevel=4, mtime=0)
        self._gzip.writelines(lines)

    def lines(self, name: str) -> Iterator[bytes]:
        """Yield the lines of one of the files."""
        self._files[name].flush()
        with (self.path / name).open("rb") as lines:
            for line in lines:
                yield line.rstrip(b"\n")

    def save(self) -> None:
        """Store the checkpoint: sync the files first, then replace the checkpoint in one step."""
        if self._gzip is not None:
            # A gzip member of its own: a compressed file can be truncated only between two members.
            self._gzip.close()
            self._gzip = None
        for name, file in self._files.items():
            file.flush()
            os.fsync(file.fileno())
            self.checkpoint.sizes[name] = file.tell()
        written = self.path / f"{_CHECKPOINT}.new"
        written.write_bytes(_checkpoints.dump_json(self.checkpoint))
        written.replace(self.path / _CHECKPOINT)


def read_checkpoint(path: Path) -> Checkpoint | None:
    """Return the checkpoint in a folder, None when there is none; raise RunFolderError when it cannot be used."""
    file = path / _CHECKPOINT
    if not file.exists():
        return None
    try:
        checkpoint = _checkpoints.validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        raise RunFolderError(f"{file} cannot be read by this version of Aquiline ({error}); start again with --restart") from error
    if checkpoint.format != _FORMAT:
        raise RunFolderError(f"{file} was written by another version of Aquiline; start again with --restart")
    return checkpoint
