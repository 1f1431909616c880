"""SHA-256 checksums beside weights, in the form that `sha256sum --check` reads, so that damaged weights are refused and not served."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

CHECKSUMS: Final = "SHA256SUMS"


def sha256_of(*files: Path) -> str:
    """Return the SHA-256 of the contents of `files`, one after the other, in hex digits."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as source:
            hashlib.file_digest(source, lambda: digest)
    return digest.hexdigest()


def write_checksums(folder: Path, names: Iterable[str]) -> None:
    """Write the checksums of these files of `folder` beside them."""
    lines = [f"{sha256_of(folder / name)}  {name}\n" for name in sorted(names)]
    (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def damaged_file(folder: Path) -> Path | None:
    """Return a file of `folder` that differs from its checksum, in the folder or in the one above; None where none does.

    Files without a checksum are not judged. Raises OSError, ValueError.
    """
    folder = folder.resolve()
    for room in (folder, folder.parent):
        if not (room / CHECKSUMS).is_file():
            continue
        for line in (room / CHECKSUMS).read_text(encoding="utf-8").splitlines():
            digest, _, name = line.partition("  ")
            file = room / name
            if file.parent == folder and sha256_of(file) != digest:
                return file
    return None
