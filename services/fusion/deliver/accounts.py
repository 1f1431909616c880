"""Counts of what became of each record and each trigger since the worker started, and the stop on too many bad records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from schemas import DeadLetterReason, live_name
from services.core import metrics
from services.core.errors import ServiceError
from services.core.fusion_settings import FusionSettings


class PoisonedStreamError(ServiceError):
    """Too many of the last records were bad: after a bad deployment the worker stops rather than dead-letter a whole stream."""


@dataclass(slots=True)
class Accounts:
    """Counts since the start. `records` is the sum of folded, duplicates, filtered and dead-lettered; a test holds it."""

    records: Counter[str] = field(default_factory=Counter)
    """By what became of them: `folded duplicate filtered dead_lettered`."""
    dead_letters: Counter[str] = field(default_factory=Counter)
    """By reason."""
    triggers: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)

    def add(self, other: Accounts) -> None:
        """Add the counts of another worker."""
        self.records.update(other.records)
        self.dead_letters.update(other.dead_letters)
        self.triggers += other.triggers
        self.outcomes.update(other.outcomes)

    def summary(self) -> dict[str, int | dict[str, int]]:
        """Return the sums as a table."""
        return {
            "records": sum(self.records.values()),
            "folded": self.records["folded"],
            "duplicates": self.records["duplicate"],
            "filtered": self.records["filtered"],
            "dead_lettered": self.records["dead_lettered"],
            "dead_letters": dict(self.dead_letters),
            "triggers": self.triggers,
            "outcomes": dict(self.outcomes),
        }


class RecordCounter:
    """Counts records and stops the stream when too many of them are bad."""

    def __init__(self, accounts: Accounts, settings: FusionSettings) -> None:
        """Count into `accounts`, with the limit that `settings` give."""
        self._accounts = accounts
        self._window = settings.dead_letter_window
        self._ratio = settings.max_dead_letter_ratio
        self._seen = 0
        self._bad = 0
        self._by_topic: Counter[tuple[str, str]] = Counter()

    def count(self, topic: str, outcome: str, records: int = 1) -> None:
        """Count records that were not dead-lettered; accounts and metrics follow with `flush`, once a batch."""
        self._by_topic[topic, outcome] += records
        self._seen += records
        if self._seen >= self._window:
            self._judge()

    def dead_letter(self, topic: str, reason: DeadLetterReason) -> None:
        """Count a dead letter; raise PoisonedStreamError when too many of the last records are bad."""
        self._accounts.dead_letters[reason.value] += 1
        self._by_topic[topic, "dead_lettered"] += 1
        metrics.DEAD_LETTERS.labels(reason.value).inc()
        self._bad += 1
        self._seen += 1
        if self._seen >= self._window:
            self._judge()

    def flush(self) -> None:
        """Bring accounts and metrics up to date."""
        for (topic, outcome), count in self._by_topic.items():
            self._accounts.records[outcome] += count
            metrics.RECORDS.labels(live_name(topic), outcome).inc(count)
        self._by_topic.clear()

    def _judge(self) -> None:
        bad, seen = self._bad, self._seen
        self._seen = self._bad = 0
        if bad > self._ratio * seen:
            reasons: Mapping[str, int] = self._accounts.dead_letters
            raise PoisonedStreamError(
                f"{bad} of the last {seen} records could not be used (so far by reason: {dict(reasons)}); the worker stops rather than "
                "dead-letter the stream. Look at the newest dead letters, mend the producer, and start again; what was not committed is "
                "read again. fusion.max_dead_letter_ratio sets the limit"
            )
