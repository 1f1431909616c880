"""The disposition of each record: folded, ignored or dead-lettered, and the counts of each."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, TypeVar

from schemas import DeadLetterReason
from services.core.bus import Record
from services.core.decode import Refused


class Disposition(StrEnum):
    """What a service did with a record. Every record has exactly one disposition."""

    FOLDED = "folded"
    DUPLICATE = "duplicate"
    FILTERED = "filtered"
    DEAD_LETTERED = "dead_lettered"


@dataclass(frozen=True, slots=True)
class RecordResult:
    """The disposition of a record, why it was refused if it was, and how many of its fields are unknown."""

    disposition: Disposition
    refused: Refused | None = None
    unknown_fields: int = 0

    @property
    def has_unknown_instrument(self) -> bool:
        """Return whether the record was refused because its instrument is not known."""
        return self.refused is not None and self.refused.reason is DeadLetterReason.UNKNOWN_INSTRUMENT

    @property
    def may_change_on_refresh(self) -> bool:
        """Return whether an instrument or a split published just before the record may change this result."""
        return self.has_unknown_instrument


D = TypeVar("D", bound=RecordResult)


class Books(Protocol[D]):
    """The state that the records of one partition are folded into."""

    def take(self, record: Record) -> D:
        """Fold a record. A refused record changes nothing."""
        ...

    def take_again(self, record: Record, result: D) -> D:
        """Fold the record taken last once more, now that newer instruments and splits are known."""
        ...

    def needed_from(self) -> int | None:
        """Return the offset from which reading the log again restores these books, None when they are empty."""
        ...


@dataclass(slots=True)
class Counts:
    """Counts of records read; `records` is the sum of `dispositions`."""

    records: int = 0
    dispositions: Counter[Disposition] = field(default_factory=Counter)
    dead_letters: Counter[DeadLetterReason] = field(default_factory=Counter)

    def add(self, result: RecordResult) -> None:
        """Count a record."""
        self.records += 1
        self.dispositions[result.disposition] += 1
        if result.refused is not None:
            self.dead_letters[result.refused.reason] += 1
