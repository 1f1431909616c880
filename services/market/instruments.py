"""Instruments and splits, read in full from their topics before the first candle, and followed from then on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import structlog
from pydantic import ValidationError

from schemas import Instrument, InstrumentEvent, RunMode, Topic, topic_name
from services.core.bus import Bus, BusError, Reader, Record, TopicPartition

_log = structlog.get_logger()
_POLL_MS: Final = 1_000


class Instruments:
    """What is known of each symbol."""

    def __init__(self, bus: Bus, run_mode: RunMode) -> None:
        """Know nothing until `start`."""
        self._bus = bus
        self._instruments_topic = topic_name(Topic.INSTRUMENTS, run_mode)
        self._events_topic = topic_name(Topic.INSTRUMENT_EVENTS, run_mode)
        self._reader: Reader | None = None
        self._partitions: list[TopicPartition] = []
        self._instruments: dict[str, Instrument] = {}
        self._splits: dict[str, list[InstrumentEvent]] = defaultdict(list)

    async def start(self) -> None:
        """Read both topics in full; raise BusError when one does not exist."""
        admin = await self._bus.admin()
        try:
            found = await admin.describe([self._instruments_topic, self._events_topic])
        finally:
            await admin.close()
        for name in (self._instruments_topic, self._events_topic):
            if name not in found:
                raise BusError(f"topic {name!r} does not exist; create it, and publish there what trades")
        self._partitions = [TopicPartition(info.name, number) for info in found.values() for number in range(info.partitions)]
        self._reader = await self._bus.reader(client_id="aquiline-market-instruments")
        await self._reader.read(await self._reader.beginning_offsets(self._partitions))
        await self.catch_up()
        _log.info("instruments_read", instruments=len(self._instruments), splits=sum(map(len, self._splits.values())))

    async def catch_up(self) -> None:
        """Read on to where both topics end now."""
        reader = self._running()
        ends = await reader.end_offsets(self._partitions)
        while any(reader.position(partition) < end for partition, end in ends.items()):
            self._fold(await reader.poll(timeout_ms=_POLL_MS))

    async def follow(self) -> None:
        """Take in what has arrived since."""
        self._fold(await self._running().poll(timeout_ms=0))

    async def close(self) -> None:
        """Close."""
        if self._reader is not None:
            await self._reader.close()

    def get(self, symbol: str) -> Instrument | None:
        """Return the instrument, None when it is not known or was deleted."""
        return self._instruments.get(symbol)

    def calendars(self) -> set[str]:
        """Return the names of all calendars in use."""
        return {instrument.calendar for instrument in self._instruments.values()}

    def splits(self, symbol: str) -> Sequence[InstrumentEvent]:
        """Return the symbol's splits in order of time: a view that shows later ones too."""
        return self._splits[symbol]

    def _running(self) -> Reader:
        if self._reader is None:
            raise RuntimeError("the instruments are not read yet; await start() first")
        return self._reader

    def _fold(self, records: Sequence[Record]) -> None:
        for record in records:
            try:
                if record.topic == self._events_topic:
                    self._fold_event(InstrumentEvent.decode(record.value or b""))
                elif record.value is None:
                    self._instruments.pop((record.key or b"").decode(errors="replace"), None)
                else:
                    instrument = Instrument.decode(record.value)
                    self._instruments[instrument.symbol] = instrument
            except ValidationError as error:
                # This is not the feed: one bad record must not stop the symbols whose records are good.
                _log.error("instrument_record_invalid", topic=record.topic, offset=record.offset, problem=str(error.errors()[0]["msg"]))

    def _fold_event(self, event: InstrumentEvent) -> None:
        known = self._splits[event.symbol]
        if all(split.effective_ms != event.effective_ms for split in known):
            known.append(event)
            known.sort(key=lambda split: split.effective_ms)
