"""Sends dead letters: the original key and bytes, with headers that give the reason and the source."""

from __future__ import annotations

from collections.abc import Awaitable

import structlog

from schemas import DeadLetter
from services.core.bus import DecodedRecord, Position, Producer, Record
from services.core.clock import Clock
from services.core.decode import Refused

_log = structlog.get_logger()


async def send_dead_letter(record: Record, refused: Refused, producer: Producer, topic: str, clock: Clock) -> Awaitable[Position]:
    """Hand the dead letter of `record` over for `topic`, and return an awaitable of its acknowledgement."""
    _log.warning(
        "dead_lettered",
        reason=refused.reason.value,
        detail=refused.detail,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
    )
    letter = DeadLetter(refused.reason, refused.detail, record.topic, record.partition, record.offset, attempts=1, ts_ms=clock.now_ms())
    value = record.original if isinstance(record, DecodedRecord) else record.value
    return await producer.send(topic, key=record.key, value=value, headers=[*record.headers, *letter.to_headers()])
