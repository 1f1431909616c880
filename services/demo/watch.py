"""Reads what leaves the worker, as any consumer would, from the topics themselves, and keeps it for the files."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from schemas import AuditRecord, Topic, decode_signal_message, topic_name
from services.core.bus import Bus, Reader, Record, TopicPartition
from services.core.settings import Settings
from services.demo.stage import partitions_of
from services.demo.tally import Tally

_POLL_MS: Final = 100


class Watcher:
    """Follows the signals and audit topics from their beginning. `on_audit` is told of each trigger's end, once."""

    def __init__(self, bus: Bus, settings: Settings, tally: Tally, on_audit: Callable[[AuditRecord], None]) -> None:
        """Count into `tally`."""
        self._bus = bus
        self._signals = topic_name(Topic.STRATEGY_SIGNALS, settings.run_mode)
        self._audit = topic_name(Topic.SIGNAL_AUDIT, settings.run_mode)
        self._tally = tally
        self._on_audit = on_audit
        self._early: list[AuditRecord] = []
        """Audit records whose signal has not been read yet: the topics are read side by side."""
        self.signal_lines: list[bytes] = []
        """Every record of the signals topic, as it came."""
        self.audit_lines: list[bytes] = []
        """Every record of the audit topic, as it came."""
        self._reader: Reader
        self._partitions: list[TopicPartition]

    async def start(self) -> None:
        """Begin to read; raise BusError."""
        self._reader = await self._bus.reader(client_id="aquiline-demo-watch")
        self._partitions = [*await partitions_of(self._bus, self._signals), *await partitions_of(self._bus, self._audit)]
        await self._reader.read(await self._reader.beginning_offsets(self._partitions))

    async def run(self) -> None:
        """Follow for ever; cancel to end."""
        while True:
            self._take(await self._reader.poll(timeout_ms=_POLL_MS))
            # A full poll of the in-process bus waits for nothing.
            await asyncio.sleep(0)

    async def finish(self) -> None:
        """Read to where both topics end now, and close."""
        ends = await self._reader.end_offsets(self._partitions)
        while any(self._reader.position(partition) < end for partition, end in ends.items()):
            self._take(await self._reader.poll(timeout_ms=_POLL_MS))
        await self._reader.close()

    def _take(self, records: list[Record]) -> None:
        for record in records:
            if record.value is None:
                continue
            if record.topic == self._signals:
                self._tally.add_message(decode_signal_message(record.value))
                self.signal_lines.append(record.value)
            else:
                audit = AuditRecord.decode(record.value)
                self.audit_lines.append(record.value)
                if self._tally.add_audit(audit):
                    self._early.append(audit)
        known = [audit for audit in self._early if audit.signal_id is None or audit.signal_id in self._tally.signals]
        for audit in known:
            self._early.remove(audit)
            self._on_audit(audit)
