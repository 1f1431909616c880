"""Dead letters: the original key and bytes, with headers that give the reason and the source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

PREFIX: Final = "aquiline.dead_letter."


class DeadLetterReason(StrEnum):
    """Why a record was dead-lettered."""

    EMPTY = "empty"
    TOO_LARGE = "too_large"
    MALFORMED = "malformed"
    INVALID = "invalid"
    UNSUPPORTED_VERSION = "unsupported_version"
    KEY_MISMATCH = "key_mismatch"
    WRONG_RUN_MODE = "wrong_run_mode"
    UNKNOWN_INSTRUMENT = "unknown_instrument"
    CONFLICT = "conflict"
    LATE = "late"
    FUTURE = "future"
    TOO_MANY_SYMBOLS = "too_many_symbols"
    WRONG_PARTITION = "wrong_partition"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """The headers of a dead letter: where the record came from, why it was dead-lettered, and after how many attempts."""

    reason: DeadLetterReason
    detail: str
    topic: str
    partition: int
    offset: int
    attempts: int
    ts_ms: int

    def to_headers(self) -> list[tuple[str, bytes]]:
        """Return Kafka headers, UTF-8, each name under `aquiline.dead_letter.`."""
        values: Mapping[str, object] = {
            "reason": self.reason.value,
            "detail": self.detail[:1000],
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
            "attempts": self.attempts,
            "ts_ms": self.ts_ms,
        }
        return [(PREFIX + name, str(value).encode()) for name, value in values.items()]

    @classmethod
    def from_headers(cls, headers: Sequence[tuple[str, bytes]]) -> Self:
        """Return what `to_headers` wrote; raise KeyError naming a header that is missing."""
        found = {name.removeprefix(PREFIX): value.decode() for name, value in headers if name.startswith(PREFIX)}
        return cls(
            reason=DeadLetterReason(found["reason"]),
            detail=found["detail"],
            topic=found["topic"],
            partition=int(found["partition"]),
            offset=int(found["offset"]),
            attempts=int(found["attempts"]),
            ts_ms=int(found["ts_ms"]),
        )
