"""A backtest's folder: what it has published so far, a line each, the log it rests on, and the checkpoint a stopped one goes on from.

A checkpoint names how long each file was. Whatever was written after it, by a run that was killed, is cut off when the run is resumed:
those instants are played again, and come to the same.
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
    """Where a run stands: `steps` have been played, all that they gave rise to is in the files, as far as `sizes` say."""

    options: BacktestRequest
    fingerprint: str
    """Of data and settings."""
    steps: int = 0
    done: bool = False
    sizes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FILES, 0))
    judges: dict[str, Any] | None = None
    outcomes: dict[str, int] = field(default_factory=dict)
    """Triggers by how they ended, and of those that were not published also by reason."""
    engine: str = ""
    """What answered, as it names itself."""
    format: int = _FORMAT


_checkpoints: Final = TypeAdapter(Checkpoint)


class RunFolder:
    """The files of one run, open for appending. A context manager."""

    def __init__(self, path: Path, checkpoint: Checkpoint) -> None:
        """Go on from `checkpoint`, cutting off what was written after it."""
        self.path = path
        self.checkpoint = checkpoint
        self._files: dict[str, IO[bytes]] = {}
        self._packed: gzip.GzipFile | None = None
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
        if self._packed is not None:
            self._packed.close()
        for file in self._files.values():
            file.close()

    def write(self, name: str, values: Iterable[bytes]) -> None:
        """Append messages to one of the files."""
        self._files[name].writelines(value + b"\n" for value in values)

    def write_log(self, lines: Iterable[bytes]) -> None:
        """Append to the packed log."""
        if self._packed is None:
            self._packed = gzip.GzipFile(fileobj=self._files[LOG], mode="wb", compresslevel=4, mtime=0)
        self._packed.writelines(lines)

    def lines(self, name: str) -> Iterator[bytes]:
        """Yield what has been written to one of the files."""
        self._files[name].flush()
        with (self.path / name).open("rb") as lines:
            for line in lines:
                yield line.rstrip(b"\n")

    def save(self) -> None:
        """Make the checkpoint stand: its files first, then itself, in one piece."""
        if self._packed is not None:
            # A member of its own: a packed file can be cut off between two of them only.
            self._packed.close()
            self._packed = None
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
        raise RunFolderError(f"{file} cannot be read, or is of another version of Aquiline ({error}); begin anew with --restart") from error
    if checkpoint.format != _FORMAT:
        raise RunFolderError(f"{file} is of another version of Aquiline; begin anew with --restart")
    return checkpoint
