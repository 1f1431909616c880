"""The numbered history of a live settings file, in a folder beside it, and the file's atomic replacement.

1. The new version's text and record are written, with a marker that they are not in effect yet.
2. The file is replaced by a rename.
3. The marker goes.

A crash leaves either the old file, with a version that never took effect and is deleted at the next call, or the new version in
effect. A file that was edited by hand is first added to the history, so that every text that was ever in effect can be restored.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict, Unpack

from pydantic import BaseModel, ConfigDict, ValidationError

from services.core.errors import ServiceError
from services.promotion.settings_change import Change

Action = Literal["found", "edited by hand", "promoted", "rolled back"]


class Version(BaseModel):
    """One version's record."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    at: str
    """UTC, ISO 8601."""
    action: Action
    actor: str
    reason: str
    sha256: str
    restores: int | None = None
    """The version whose text this one restored."""
    changes: list[Change] = []
    comparison: dict[str, Any] | None = None
    """The comparison that a promotion was based on."""
    override: str | None = None
    """The reason for a promotion against its comparison, or without one."""


class _VersionFields(TypedDict):
    """The fields of a version that the caller sets; see `Version`."""

    action: Action
    actor: str
    reason: str
    restores: NotRequired[int]
    changes: NotRequired[list[Change]]
    comparison: NotRequired[dict[str, Any] | None]
    override: NotRequired[str | None]


class History:
    """The versions of one settings file."""

    def __init__(self, file: Path) -> None:
        """Use the folder beside `file`; nothing is written yet."""
        self.file = file
        self.folder = file.with_name(f"{file.name}.history")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock on the file; raise ServiceError when another process holds it."""
        self.folder.mkdir(exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ServiceError(f"another process is changing {self.file}; try again when it has finished") from None
            yield

    def versions(self) -> list[Version]:
        """Return every version, oldest first; raise ServiceError when the history cannot be read."""
        found = []
        for file in sorted(self.folder.glob("[0-9]*.json")):
            try:
                found.append(Version.model_validate_json(file.read_bytes()))
            except ValidationError as error:
                raise ServiceError(f"{file} is not a valid version record: {error.errors()[0]['msg']}; restore the file") from error
        return found

    def text(self, number: int) -> str:
        """Return a version's text; raise ServiceError when the file was changed."""
        version = next((one for one in self.versions() if one.number == number), None)
        if version is None:
            raise ServiceError(f"{self.folder} has no version {number}; `aquiline rollback --list` lists the versions")
        text = self._path(number, "toml").read_text()
        if _sha256(text) != version.sha256:
            raise ServiceError(f"{self._path(number, 'toml')} has been changed since it was written; it is not restored")
        return text

    def current(self, actor: str) -> Version:
        """Return the version in effect, after adding an edit by hand and deleting a version that never took effect."""
        versions, text = self.versions(), self.file.read_text()
        sha256 = _sha256(text)
        if self._pending.exists():
            if len(versions) > 1 and versions[-1].sha256 != sha256 == versions[-2].sha256:
                number = versions.pop().number
                self._path(number, "json").unlink()
                self._path(number, "toml").unlink()
            self._pending.unlink()
        if versions and versions[-1].sha256 == sha256:
            return versions[-1]
        return self._record(text, action="edited by hand" if versions else "found", actor=actor, reason="as it was found")

    def change(self, text: str, **fields: Unpack[_VersionFields]) -> Version:
        """Put `text` into effect as the next version, and return its record."""
        _write(self._pending, "")
        version = self._record(text, **fields)
        new = self.file.with_name(f".{self.file.name}.new")
        _write(new, text)
        new.chmod(self.file.stat().st_mode)
        new.replace(self.file)
        _sync(self.file.parent)
        self._pending.unlink()
        return version

    def before(self, current: Version) -> int:
        """Return the version before the one whose text is in effect; raise ServiceError when there is none."""
        number = current.restores or current.number
        earlier = [one for one in self.versions() if one.number < number]
        if not earlier:
            raise ServiceError(f"version {number} is the first in {self.folder}; there is no earlier one")
        return earlier[-1].restores or earlier[-1].number

    @property
    def _pending(self) -> Path:
        return self.folder / "pending"

    def _record(self, text: str, **fields: Unpack[_VersionFields]) -> Version:
        versions = self.versions()
        number = versions[-1].number + 1 if versions else 1
        at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        version = Version(number=number, at=at, sha256=_sha256(text), **fields)
        _write(self._path(number, "toml"), text)
        _write(self._path(number, "json"), version.model_dump_json(indent=2) + "\n")
        _sync(self.folder)
        return version

    def _path(self, number: int, kind: str) -> Path:
        return self.folder / f"{number:04}.{kind}"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _write(file: Path, text: str) -> None:
    with file.open("w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())


def _sync(folder: Path) -> None:
    """Sync a folder's entries to disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
