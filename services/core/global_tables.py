"""Topics read in full by every worker, outside its group, as Kafka Streams' global tables are: instruments and `control`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import structlog

from services.core.bus import Bus, BusError, Reader, Record, TopicPartition
from services.core.bus.topic_reader import partitions_of, poll_until
from services.core.clock import Clock

_log = structlog.get_logger()
_POLL_MS: Final = 250
_RETRY_MS: Final = 250


class GlobalTables:
    """Follows topics from their beginning and hands each record to `fold`."""

    def __init__(self, bus: Bus, clock: Clock, topics: Sequence[str], fold: Callable[[Record], object], client_id: str) -> None:
        """`fold` takes each record in order within its topic; it must not raise. Without `topics` nothing is read."""
        self._bus = bus
        self._clock = clock
        self._topics = list(topics)
        self._fold = fold
        self._client_id = client_id
        self._reader: Reader | None = None
        self._partitions: list[TopicPartition] = []
        self.ends: dict[str, int] = {}
        """Where each topic ended when everything was last read to its end, over its partitions."""
        self.last_read_ms = 0
        """When the broker last answered that everything there is has been read, on the clock handed in."""

    async def start(self) -> None:
        """Read every topic to where it ends now; raise BusError when one does not exist."""
        if not self._topics:
            return
        self._partitions = [tp for name in self._topics for tp in await partitions_of(self._bus, name)]
        self._reader = await self._bus.reader(client_id=self._client_id)
        # Before anything is read: a broker answers one connection in order, and holds a fetch at a topic's end for 100 ms.
        begins, ends = await self._reader.beginning_offsets(self._partitions), await self._reader.end_offsets(self._partitions)
        await self._reader.read(begins)
        await self._read_to(ends)

    async def catch_up(self) -> None:
        """Read on to where every topic ends now."""
        if self._topics:
            await self._read_to(await self._running().end_offsets(self._partitions))

    async def follow(self) -> None:
        """Read on for ever, through outages of the broker; cancel to end."""
        if not self._topics:
            return
        reader = self._running()
        ends: Mapping[TopicPartition, int] = {}
        while True:
            try:
                self._take(await reader.poll(timeout_ms=_POLL_MS))
                # A poll that returns nothing looks the same with the broker gone, or with a batch that cannot be read: ask where the
                # topics end, and by the next time to have read what there was.
                caught_up = bool(ends) and all(reader.position(tp) >= end for tp, end in ends.items())
                ends = await reader.end_offsets(self._partitions)
                if caught_up:
                    self.last_read_ms = self._clock.now_ms()
            except BusError as error:
                _log.warning("tables_unreadable", topics=self._topics, error=str(error))
                await self._clock.sleep_until(self._clock.now_ms() + _RETRY_MS)

    async def close(self) -> None:
        """Close."""
        if self._reader is not None:
            await self._reader.close()

    async def _read_to(self, ends: Mapping[TopicPartition, int]) -> None:
        async for records in poll_until(self._running(), ends):
            self._take(records)
        self.ends = {name: sum(end for tp, end in ends.items() if tp.topic == name) for name in self._topics}
        self.last_read_ms = self._clock.now_ms()

    def _running(self) -> Reader:
        if self._reader is None:
            raise RuntimeError(f"the tables of {self._topics} are not read yet; await start() first")
        return self._reader

    def _take(self, records: Sequence[Record]) -> None:
        for record in records:
            self._fold(record)
