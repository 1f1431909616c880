"""Writes logs to files: all that the topics hold, or what the decisions of a span of time rest on, with their audit records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Final

from schemas import topic_name
from services.core.bus import Bus
from services.core.bus.topic_reader import TimeRange, read_within
from services.core.exported_log import TOPICS, Header, LogWriter
from services.core.settings import Settings
from services.replay.audit_trail import AuditEntry, AuditTrail
from services.replay.log_source import OffsetRange, TopicLog
from services.replay.verify_audit import wanted_of

_STRETCH: Final = 2
"""Twice as far back as the calendars ask for: bars may be missing."""


async def export_all(bus: Bus, settings: Settings, file: Path) -> int:
    """Write every record that prompts are made of, as the topics hold them now; return how many. Raise BusError, OSError.

    For topics that held nothing before: the log says of itself that it is whole.
    """
    count = 0
    reader = await bus.reader(client_id="aquiline-replay")
    try:
        with LogWriter(file, Header(settings, whole=True)) as out:
            for topic in TOPICS:
                async for record in read_within(bus, reader, topic_name(topic, settings.run_mode), TimeRange()):
                    out.write(record)
                    count += 1
    finally:
        await reader.close()
    return count


async def export_rests_on(trail: AuditTrail, inputs: TopicLog, log: Path, on_written: Callable[[int, int], None]) -> int:
    """Write the log that a trail rests on and return its length; `on_written` hears of records done and in all. Raise BusError, OSError."""
    partitions: dict[int, list[AuditEntry]] = defaultdict(list)
    for entry in trail.entries:
        partitions[entry.record.trigger.partition].append(entry)
    run_mode = inputs.settings.run_mode
    ranges: list[OffsetRange] = []
    for number, entries in sorted(partitions.items()):
        ranges += await inputs.ranges(number, wanted_of(entries, run_mode, _STRETCH))
    total = sum(one.stop - one.first for one in ranges)
    count = 0
    with LogWriter(log, Header(inputs.settings, whole=all(one.first == 0 for one in ranges))) as out:
        for record in inputs.table_records:
            out.write(record)
        async for record in inputs.records(ranges):
            out.write(record)
            count += 1
            on_written(count, total)
    return count + len(inputs.table_records)
