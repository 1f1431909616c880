"""Findings on the records of the optional topics: they are read as a worker reads them, and what it would refuse is reported."""

from __future__ import annotations

from collections.abc import Mapping

from schemas import topic_name
from services.core.bus import Bus, TopicInfo
from services.core.bus.topic_reader import TimeRange, read_within
from services.core.settings import Settings
from services.core.table_inputs import table_specs
from services.doctor.finding import Finding, ok, warn
from services.fusion.inputs.tables import Tables


async def table_findings(bus: Bus, settings: Settings, infos: Mapping[str, TopicInfo]) -> list[Finding]:
    """Return a finding for each optional topic that exists; raise BusError."""
    found = []
    for topic in table_specs():
        name = topic_name(topic, settings.run_mode)
        if name not in infos:
            continue
        tables, read, refused, last = Tables(settings), 0, 0, ""
        reader = await bus.reader(client_id="aquiline-doctor")
        try:
            async for record in read_within(bus, reader, name, TimeRange()):
                read += 1
                if (why := tables.take(record)) is not None:
                    refused += 1
                    last = f"offset {record.offset}: {why.reason.value}, {why.detail}"
        finally:
            await reader.close()
        found.append(_finding(f"records {settings.topics.on_broker(name)}", read, refused, last))
    return found


def _finding(check: str, read: int, refused: int, last: str) -> Finding:
    if refused:
        sentence = f"{refused} of {read} are refused by every worker, the last: {last}"
        return warn(check, sentence, "correct their producer; docs/messages.md has the contract")
    return ok(check, f"all {read} can be used" if read else "there are none")
