"""What became of each record: the terms that books and the service around them share, and the sums over them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, TypeVar

from schemas import DeadLetterReason
from services.core.bus import Record
from services.core.decode import Refused


class Outcome(StrEnum):
    """What became of a record; every record has exactly one."""

    FOLDED = "folded"
    DUPLICATE = "duplicate"
    FILTERED = "filtered"
    DEAD_LETTERED = "dead_lettered"


@dataclass(frozen=True, slots=True)
class Dealt:
    """How a record was dealt with, why it was refused if it was, and how many of its fields were unknown."""

    outcome: Outcome
    refused: Refused | None = None
    unknown_fields: int = 0

    @property
    def of_stranger(self) -> bool:
        """Return whether the record was refused because its instrument is not known."""
        return self.refused is not None and self.refused.reason is DeadLetterReason.UNKNOWN_INSTRUMENT

    @property
    def awaits_news(self) -> bool:
        """Return whether an instrument or a split that was published just before the record may change this."""
        return self.of_stranger


D = TypeVar("D", bound=Dealt)


class Books(Protocol[D]):
    """What one partition's records are folded into."""

    def take(self, record: Record) -> D:
        """Deal with a record. One that is refused changes nothing."""
        ...

    def again(self, record: Record, dealt: D) -> D:
        """Deal once more with the record taken last, now that later instruments and splits are known."""
        ...

    def needed_from(self) -> int | None:
        """Return the offset from which reading the log again restores these books, None when they are empty."""
        ...


@dataclass(slots=True)
class Counts:
    """What became of the records read; `records` is the sum of `outcomes`."""

    records: int = 0
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    dead_letters: Counter[DeadLetterReason] = field(default_factory=Counter)

    def add(self, dealt: Dealt) -> None:
        """Count a record."""
        self.records += 1
        self.outcomes[dealt.outcome] += 1
        if dealt.refused is not None:
            self.dead_letters[dealt.refused.reason] += 1
