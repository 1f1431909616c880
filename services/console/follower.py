"""Follows the topics outside any consumer group, from some minutes back, through outages; topics that are missing are looked for again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from services.core.bus import Bus, BusError, OffsetOutOfRangeError, Reader, Record, TopicPartition
from services.core.bus.topic_reader import TimeRange, offsets_within
from services.core.clock import Clock

_POLL_MS: Final = 100
_MAX_RECORDS: Final = 500
_LOOK_AGAIN_MS: Final = 5_000
"""How often the broker is asked for missing topics and for how much is left to read."""
_RETRY_MS: Final = 1_000

_log = structlog.get_logger()


class TopicFollower:
    """Reads every partition of some topics and hands batches to `take`."""

    def __init__(self, bus: Bus, clock: Clock, topics: Sequence[str], lookback_ms: int, take: Callable[[Sequence[Record]], None]) -> None:
        """`take` gets the records of a partition in order; it must not raise."""
        self._bus = bus
        self._clock = clock
        self._topics = list(topics)
        self._since_ms = clock.now_ms() - lookback_ms
        self._take = take
        self._positions: dict[TopicPartition, int] = {}
        self._asked_ms = 0
        self.connected = False
        self.behind_records = 0
        self.problem: str | None = "the broker has not answered yet"
        self.missing: list[str] = list(topics)

    async def run(self) -> None:
        """Follow for ever; cancel to end."""
        while True:
            try:
                reader = await self._bus.reader(client_id="aquiline-console")
                try:
                    await self._follow(reader)
                finally:
                    await reader.close()
            except BusError as error:
                self.connected, self.problem = False, str(error)
                _log.warning("topics_unreadable", error=str(error))
                await asyncio.sleep(_RETRY_MS / 1000)

    async def _follow(self, reader: Reader) -> None:
        if self._positions:
            await reader.read(self._positions)
        await self._look_around(reader)
        while True:
            try:
                records = await reader.poll(timeout_ms=_POLL_MS, max_records=_MAX_RECORDS)
            except OffsetOutOfRangeError as error:
                # Retention or an operator deleted what was to come next: the console shows what is left.
                self._positions |= await reader.beginning_offsets(list(error.missing))
                await reader.read(self._positions)
                continue
            if records:
                self._take(records)
                self._positions = {one: reader.position(one) for one in self._positions}
            # The in-process bus does not yield while a poll finds records.
            await asyncio.sleep(0)
            if self._clock.now_ms() - self._asked_ms >= _LOOK_AGAIN_MS:
                await self._look_around(reader)

    async def _look_around(self, reader: Reader) -> None:
        """Start on topics that have come to exist, and ask how much is left: a poll without records looks the same in an outage."""
        if self.missing and (added := await self._new_partitions(reader)):
            self._positions |= added
            await reader.read(self._positions)
        ends = await reader.end_offsets(list(self._positions)) if self._positions else {}
        self.behind_records = sum(max(0, end - self._positions[one]) for one, end in ends.items())
        self.connected, self.problem, self._asked_ms = True, None, self._clock.now_ms()

    async def _new_partitions(self, reader: Reader) -> dict[TopicPartition, int]:
        """Return the partitions of topics that were missing, each with the offset to begin at."""
        admin = await self._bus.admin()
        try:
            described = await admin.describe(self.missing)
        finally:
            await admin.close()
        partitions = [TopicPartition(one.name, number) for one in described.values() for number in range(one.partitions)]
        within = await offsets_within(reader, partitions, TimeRange(self._since_ms)) if partitions else {}
        self.missing = [one for one in self.missing if one not in described]
        return {one: offsets.start for one, offsets in within.items()}
