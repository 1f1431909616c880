"""Writes the log to a file: everything that the topics hold, or the records that some decisions used."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from schemas import Topic
from services.core.bus import Bus
from services.core.bus.topic_reader import TimeRange, read_within
from services.core.exported_log import Header, LogWriter
from services.core.settings import Settings
from services.core.topic_admin import existing_topics
from services.replay.audit_trail import AuditEntry, AuditTrail
from services.replay.log_source import OffsetRange, TopicLog, reference_topics
from services.replay.verify_audit import wanted_of

_STRETCH: Final = 2
"""Reads twice as far back as the calendars require, as bars may be missing."""


async def export_all(bus: Bus, configurations: Sequence[Settings], file: Path) -> int:
    """Write every record of the topics that prompts are made of; return the count. Raise BusError, OSError.

    The file's header declares the log complete, so the topics must hold every record since they were created.
    """
    count = 0
    reader = await bus.reader(client_id="aquiline-replay")
    try:
        settings, *later = configurations
        with LogWriter(file, Header(settings, whole=True, later_settings=tuple(later))) as out:
            for name in await existing_topics(bus, (Topic.MARKET_FEATURES, Topic.VISION_FEATURES, *reference_topics()), settings.run_mode):
                async for record in read_within(bus, reader, name, TimeRange()):
                    out.write(record)
                    count += 1
    finally:
        await reader.close()
    return count


async def export_for_trail(trail: AuditTrail, inputs: TopicLog, log: Path, on_written: Callable[[int, int], None]) -> int:
    """Write the records that the decisions of a trail used; return the count. Raise BusError, OSError.

    `on_written` is called with the count so far and the count in all.
    """
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
        for record in inputs.reference_records:
            out.write(record)
        async for record in inputs.records(ranges):
            out.write(record)
            count += 1
            on_written(count, total)
    return count + len(inputs.reference_records)
