"""Reads signals and audit records from their topics, as any consumer would, and keeps the raw records for the files."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Final

from schemas import AuditRecord, Topic, decode_signal_message, topic_name
from services.core.bus import Bus, Reader, Record, TopicPartition
from services.core.bus.topic_reader import partitions_of
from services.core.settings import Settings
from services.demo.results import Results

_POLL_MS: Final = 100


class Follower:
    """Adds every record to `results`, and calls `on_audit` once for each trigger, after its signal was read."""

    def __init__(self, bus: Bus, settings: Settings, results: Results, on_audit: Callable[[AuditRecord], None]) -> None:
        """Read nothing yet."""
        self._bus = bus
        self._signals = topic_name(Topic.STRATEGY_SIGNALS, settings.run_mode)
        self._audit = topic_name(Topic.SIGNAL_AUDIT, settings.run_mode)
        self._results = results
        self._on_audit = on_audit
        self._waiting: list[AuditRecord] = []
        """Audit records whose signal has not been read yet: the two topics have no common order."""
        self.signal_lines: list[bytes] = []
        self.audit_lines: list[bytes] = []
        self._reader: Reader
        self._partitions: list[TopicPartition]

    @contextlib.asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Follow both topics from their present end while the context lasts; raise BusError."""
        self._reader = await self._bus.reader(client_id="aquiline-demo-follower")
        self._partitions = [*await partitions_of(self._bus, self._signals), *await partitions_of(self._bus, self._audit)]
        await self._reader.read(await self._reader.end_offsets(self._partitions))
        task = asyncio.create_task(self._follow(), name="follower")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def finish(self) -> None:
        """Read to the present end of both topics, and close."""
        ends = await self._reader.end_offsets(self._partitions)
        while any(self._reader.position(partition) < end for partition, end in ends.items()):
            self._take(await self._reader.poll(timeout_ms=_POLL_MS))
        await self._reader.close()

    async def _follow(self) -> None:
        while True:
            self._take(await self._reader.poll(timeout_ms=_POLL_MS))
            # The in-process bus does not yield while a poll finds records.
            await asyncio.sleep(0)

    def _take(self, records: list[Record]) -> None:
        for record in records:
            value = record.value or b""
            if record.topic == self._signals:
                self._results.add_message(decode_signal_message(value))
                self.signal_lines.append(value)
            else:
                audit = AuditRecord.decode(value)
                self.audit_lines.append(value)
                if self._results.add_audit(audit):
                    self._waiting.append(audit)
        ready = [audit for audit in self._waiting if audit.signal_id is None or self._results.signal_of(audit) is not None]
        for audit in ready:
            self._waiting.remove(audit)
            self._on_audit(audit)
