"""What workers publish, read from the topics as any consumer would: signals, cancels and audit records, with figures over them."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Final
from uuid import UUID

from schemas import LATENCY_STAGES, AuditRecord, Cancel, Outcome, RunMode, Signal, Topic, decode_signal_message, live_name, topic_name
from services.core.bus import Bus, Record
from services.core.bus.topic_reader import partitions_of, poll_until
from services.core.health import Health
from services.core.percentile import percentile
from services.fusion.prompt.prewarm import WarmCount

PERCENTILES: Final = (50, 90, 95, 99)
_POLL_MS: Final = 100
_NONE_AHEAD: Final = WarmCount()


class Outputs:
    """Signals, cancels and audit records, in any order. One that is delivered again counts once, by `signal_id` or `trigger_id`."""

    def __init__(self, on_audit: Callable[[AuditRecord, Signal | None], None] = lambda *_: None) -> None:
        """Hold nothing yet; `on_audit` is called once for each trigger, with its signal if it has one."""
        self._on_audit = on_audit
        self._waiting: list[AuditRecord] = []
        """Audit records whose signal has not been read yet: the two topics have no common order."""
        self.audits: dict[UUID, AuditRecord] = {}
        self.signals: dict[UUID, Signal] = {}
        self.cancels: list[Cancel] = []
        self.contradictions = 0
        """Audit records that give a trigger a second, different outcome."""
        self.lines: dict[Topic, list[bytes]] = defaultdict(list)
        """The records as they were read."""

    def add_records(self, records: Iterable[Record]) -> None:
        """Add records of both topics."""
        for record in records:
            topic, value = Topic(live_name(record.topic)), record.value or b""
            self.lines[topic].append(value)
            self.add(AuditRecord.decode(value) if topic is Topic.SIGNAL_AUDIT else decode_signal_message(value))

    def add(self, message: Signal | Cancel | AuditRecord) -> None:
        """Add a message; the first body of an id counts."""
        if isinstance(message, Cancel):
            self.cancels.append(message)
        elif isinstance(message, Signal):
            self.signals.setdefault(message.signal_id, message)
        elif (first := self.audits.get(message.trigger_id)) is not None:
            self.contradictions += first.outcome is not message.outcome
        else:
            self.audits[message.trigger_id] = message
            self._waiting.append(message)
        for audit in [one for one in self._waiting if one.signal_id is None or one.signal_id in self.signals]:
            self._waiting.remove(audit)
            self._on_audit(audit, None if audit.signal_id is None else self.signals[audit.signal_id])


class OutputsFollower:
    """A service that adds what the topics gain from its start on, up to what they hold when it is stopped."""

    def __init__(self, bus: Bus, run_mode: RunMode, outputs: Outputs, health: Health) -> None:
        """Add to `outputs`."""
        self._bus = bus
        self._topics = [topic_name(topic, run_mode) for topic in (Topic.STRATEGY_SIGNALS, Topic.SIGNAL_AUDIT)]
        self._outputs = outputs
        self._health = health
        self._stopped = asyncio.Event()
        health.require("following")

    async def run(self) -> None:
        """Follow the topics until `stop`; raise BusError."""
        partitions = [partition for topic in self._topics for partition in await partitions_of(self._bus, topic)]
        reader = await self._bus.reader(client_id="aquiline-outputs")
        await reader.read(await reader.end_offsets(partitions))
        self._health.set("following")
        while not self._stopped.is_set():
            self._outputs.add_records(await reader.poll(timeout_ms=_POLL_MS))
            # The in-process bus does not yield while a poll finds records.
            await asyncio.sleep(0)
        async for records in poll_until(reader, await reader.end_offsets(partitions)):
            self._outputs.add_records(records)
        await reader.close()

    def stop(self) -> None:
        """Read what is there by now, and end."""
        self._stopped.set()


def outcomes(audits: Iterable[AuditRecord]) -> Counter[Outcome]:
    """Return how many triggers ended in each outcome."""
    return Counter(audit.outcome for audit in audits)


def published(audits: Iterable[AuditRecord]) -> list[AuditRecord]:
    """Return the audit records of published signals."""
    return [audit for audit in audits if audit.outcome is Outcome.PUBLISHED]


def calls(audits: Iterable[AuditRecord]) -> list[AuditRecord]:
    """Return the audit records of triggers that reached the engine, whatever their outcome."""
    return [audit for audit in audits if audit.cached_tokens is not None]


def latencies(audits: Sequence[AuditRecord]) -> dict[str, dict[str, float]]:
    """Return percentiles and maximum by stage in milliseconds, `total` first; empty without audits."""
    columns = {"total": [audit.total_ms for audit in audits]}
    columns |= {stage: [audit.latency_ms[stage] for audit in audits if stage in audit.latency_ms] for stage in LATENCY_STAGES}
    return {
        stage: {**{f"p{percent}": round(percentile(values, percent / 100), 2) for percent in PERCENTILES}, "max": round(max(values), 2)}
        for stage, values in columns.items()
        if values
    }


def hit_ratio(audits: Sequence[AuditRecord], ahead: WarmCount = _NONE_AHEAD) -> float | None:
    """Return cached over prompt tokens of the calls behind `audits` plus those sent `ahead`; None without any."""
    prompt = ahead.prompt_tokens + sum(audit.prompt_tokens or 0 for audit in audits)
    cached = ahead.cached_tokens + sum(audit.cached_tokens or 0 for audit in audits)
    return cached / prompt if prompt else None
