"""A view of a site's topics that grows as they do, decoded, to wait on and to judge by."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from uuid import UUID

from schemas import AuditRecord, Cancel, DeadLetter, RunMode, Signal, Topic, decode_signal_message, topic_name
from services.core.bus import Bus, BusError, Reader, Record, TopicPartition
from tests.integration.fusion.waiting import PATIENCE_S, until

_FOLLOWED = {
    Topic.MARKET_FEATURES: True,
    Topic.VISION_FEATURES: True,
    Topic.STRATEGY_SIGNALS: True,
    Topic.SIGNAL_AUDIT: True,
    Topic.DEAD_LETTERS: False,
}
"""By topic, whether it has as many partitions as the inputs."""


class Logs:
    """What is on the topics; `look` takes in what has come since."""

    def __init__(self, bus: Bus, run_mode: RunMode, partitions: int) -> None:
        """Follow the inputs and outputs of `run_mode`."""
        self._bus = bus
        self._topics = {topic_name(topic, run_mode): topic for topic in _FOLLOWED}
        self._partitions = [
            TopicPartition(topic_name(topic, run_mode), number)
            for topic, shared in _FOLLOWED.items()
            for number in range(partitions if shared else 1)
        ]
        self._reader: Reader | None = None
        self.records: dict[Topic, list[Record]] = defaultdict(list)
        self.audits: list[AuditRecord] = []
        self.messages: list[tuple[Record, Signal | Cancel]] = []
        """Signals and cancels, each with its record."""
        self.dead_letters: list[tuple[Record, DeadLetter]] = []
        self.ended: dict[UUID, AuditRecord] = {}
        """By trigger id, the first outcome."""

    async def open(self) -> None:
        """Begin where the topics begin."""
        self._reader = await self._bus.reader(client_id="logs")
        await self._reader.read(await self._reader.beginning_offsets(self._partitions))

    async def look(self) -> None:
        """Take in what there is; a broker that does not answer is asked again later."""
        assert self._reader is not None, "open it first"
        try:
            records = await self._reader.poll(timeout_ms=50, max_records=5_000)
        except BusError:
            return
        for record in records:
            self._take(record)

    async def to_the_end(self) -> None:
        """Take in all that the topics hold by now: an outcome may be read before the signal that it names."""
        assert self._reader is not None, "open it first"
        reader = self._reader
        ends = await reader.end_offsets(self._partitions)
        await self.until(lambda: all(reader.position(tp) >= end for tp, end in ends.items()), "the topics' ends")

    async def until(
        self, holds: Callable[[], bool], what: str, *, patience_s: float = PATIENCE_S, told: Callable[[], object] | None = None
    ) -> None:
        """Return once `holds` does, looking all the while."""

        async def looked() -> bool:
            await self.look()
            return holds()

        await until(looked, what, patience_s=patience_s, told=told or self.summary)

    @property
    def signals(self) -> list[Signal]:
        """Return the signals, redelivered bodies included."""
        return [message for _, message in self.messages if isinstance(message, Signal)]

    @property
    def cancels(self) -> list[Cancel]:
        """Return the cancels."""
        return [message for _, message in self.messages if isinstance(message, Cancel)]

    def outcomes(self) -> Counter[str]:
        """Return how many triggers ended how, distinct by trigger id."""
        return Counter(audit.outcome.value for audit in self.ended.values())

    def reasons(self) -> Counter[str | None]:
        """Return how many triggers ended for which reason, distinct by trigger id."""
        return Counter(audit.reason for audit in self.ended.values())

    def last_audit(self, symbol: str) -> AuditRecord:
        """Return the newest outcome of `symbol`."""
        return next(audit for audit in reversed(self.audits) if audit.symbol == symbol)

    def summary(self) -> str:
        """Return the counts, for messages."""
        counts = {topic.value: len(records) for topic, records in self.records.items()}
        return f"on the topics: {counts}; outcomes: {dict(self.outcomes())}; reasons: {dict(self.reasons())}"

    async def close(self) -> None:
        """Close."""
        if self._reader is not None:
            await self._reader.close()

    def _take(self, record: Record) -> None:
        topic = self._topics[record.topic]
        self.records[topic].append(record)
        if topic is Topic.SIGNAL_AUDIT:
            audit = AuditRecord.decode(record.value or b"")
            self.audits.append(audit)
            self.ended.setdefault(audit.trigger_id, audit)
        elif topic is Topic.STRATEGY_SIGNALS:
            self.messages.append((record, decode_signal_message(record.value or b"")))
        elif topic is Topic.DEAD_LETTERS:
            self.dead_letters.append((record, DeadLetter.from_headers(record.headers)))
