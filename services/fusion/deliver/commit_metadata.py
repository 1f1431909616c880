"""What a commit says beside its offset: where the partition's own signals and audit records end, and how many partitions there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

_VERSION: Final = "a2"


class CommitMetadata(NamedTuple):
    """The next offsets of the partition's signals and audit, and the partition count of the topics."""

    signals: int
    audit: int
    partitions: int


def encode_metadata(output_ends: Sequence[int], partitions: int) -> str:
    """Return the text to commit with an offset."""
    return ":".join([_VERSION, *map(str, output_ends), str(partitions)])


def decode_metadata(text: str) -> CommitMetadata | None:
    """Return what a commit's text says, None when another program wrote it."""
    version, *numbers = text.split(":")
    if version != _VERSION or len(numbers) != len(CommitMetadata._fields) or not all(one.isdecimal() for one in numbers):
        return None
    return CommitMetadata(*map(int, numbers))
