"""The numbered history of a live settings file, in a folder beside it, and the file's atomic replacement.

1. The new version's text and record are written, with a marker that they are not in effect yet.
2. The file is replaced by a rename.
3. The marker goes.

A crash leaves either the file as it was, with a version that never took effect and is dropped the next time, or the version in
effect. A file that somebody changed by hand meanwhile is taken into the history first, so that every text that was ever in effect can
be had again.
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
    """The version whose text this one brought back."""
    changes: list[Change] = []
    comparison: dict[str, Any] | None = None
    """The whole comparison that a promotion rested on."""
    override: str | None = None
    """Why it was promoted against its comparison, or without one."""


class _VersionFields(TypedDict):
    """What a caller says of a version; see `Version`."""

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
        """Keep them beside `file`; nothing is written yet."""
        self.file = file
        self.folder = file.with_name(f"{file.name}.history")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others from changing the file meanwhile; raise ServiceError when somebody does."""
        self.folder.mkdir(exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ServiceError(f"somebody else is changing {self.file} right now; look at its history when they are done") from None
            yield

    def versions(self) -> list[Version]:
        """Return every version, oldest first; raise ServiceError when the history cannot be read."""
        found = []
        for file in sorted(self.folder.glob("[0-9]*.json")):
            try:
                found.append(Version.model_validate_json(file.read_bytes()))
            except ValidationError as error:
                raise ServiceError(f"{file} is no record of a version: {error.errors()[0]['msg']}; put it back as it was") from error
        return found

    def text(self, number: int) -> str:
        """Return a version's text; raise ServiceError when it is not as it was written."""
        version = next((one for one in self.versions() if one.number == number), None)
        if version is None:
            raise ServiceError(f"{self.folder} has no version {number}; `aquiline rollback --list` shows those that there are")
        text = self._path(number, "toml").read_text()
        if _sha256(text) != version.sha256:
            raise ServiceError(f"{self._path(number, 'toml')} has been changed since it was written; it is not brought back")
        return text

    def current(self, actor: str) -> Version:
        """Return the version in effect, having taken in what was done to the file by hand, and dropped what never took effect."""
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

    def change(self, text: str, **told: Unpack[_VersionFields]) -> Version:
        """Put `text` into effect as the next version, and return its record."""
        _write(self._pending, "")
        version = self._record(text, **told)
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
            raise ServiceError(f"version {number} is the first that {self.folder} knows; there is nothing before it to go back to")
        return earlier[-1].restores or earlier[-1].number

    @property
    def _pending(self) -> Path:
        return self.folder / "pending"

    def _record(self, text: str, **told: Unpack[_VersionFields]) -> Version:
        versions = self.versions()
        number = versions[-1].number + 1 if versions else 1
        at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        version = Version(number=number, at=at, sha256=_sha256(text), **told)
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
    """Have a folder's entries on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
