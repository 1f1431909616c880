"""Instruments and corporate events as global tables: every service needs them before a symbol's first bar."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Final

import structlog
from pydantic import ValidationError

from schemas import (
    CorporateEvent,
    Instrument,
    InstrumentEvent,
    Restatement,
    RunMode,
    SymbolChange,
    Topic,
    decode_corporate_event,
    topic_name,
)
from services.core.bus import Bus, BusError, Record
from services.core.calendar import CalendarError, SessionCalendar
from services.core.clock import Clock
from services.core.global_tables import GlobalTables
from services.core.restatement import MAX_SPLIT_SCALE

_REFRESH_INTERVAL_S: Final = 0.5
"""Records of unknown instruments trigger a refresh at most this often."""

_log = structlog.get_logger()


class Instruments:
    """The instruments and corporate events of all symbols."""

    def __init__(self, bus: Bus, clock: Clock, run_mode: RunMode, client_id: str) -> None:
        """Hold nothing until `start`."""
        self._instruments_topic = topic_name(Topic.INSTRUMENTS, run_mode)
        self._events_topic = topic_name(Topic.INSTRUMENT_EVENTS, run_mode)
        self._tables = GlobalTables(bus, clock, [self._instruments_topic, self._events_topic], self._fold, client_id)
        self._instruments: dict[str, Instrument] = {}
        self._restatements: dict[str, list[Restatement]] = {}
        self._changes: dict[str, SymbolChange] = {}
        self.on_restatement: Callable[[Restatement], None] | None = None
        """Called with each split and dividend as it arrives."""
        self.on_symbol_change: Callable[[SymbolChange], None] | None = None
        """Called with each change of symbol as it arrives."""
        self._refreshed_s = float("-inf")

    async def start(self) -> None:
        """Read both topics in full; raise BusError when one does not exist."""
        await self._tables.start()
        _log.info("instruments_read", instruments=len(self._instruments), restatements=sum(map(len, self._restatements.values())))

    async def follow(self) -> None:
        """Fold new records as they arrive; cancel to stop."""
        await self._tables.follow()

    async def catch_up(self) -> None:
        """Read both topics to their current ends."""
        await self._tables.catch_up()

    async def refresh(self) -> bool:
        """Catch up and return whether that succeeded; when it fails, what was read before stays in use."""
        try:
            await self.catch_up()
        except BusError as error:
            _log.warning("instruments_unreadable", reason=str(error))
            return False
        return True

    async def refresh_for_record(self) -> bool:
        """Catch up for a record of an unknown symbol, at most twice a second; return whether to look the symbol up again."""
        now_s = asyncio.get_running_loop().time()
        if now_s - self._refreshed_s < _REFRESH_INTERVAL_S:
            return False
        self._refreshed_s = now_s
        return await self.refresh()

    async def close(self) -> None:
        """Close."""
        await self._tables.close()

    def get(self, symbol: str) -> Instrument | None:
        """Return the instrument, None when it is not known or was deleted. It expires at the latest when another symbol replaces it."""
        instrument, change = self._instruments.get(symbol), self._changes.get(symbol)
        if instrument is None or change is None or (instrument.expiry_ms or change.effective_ms) < change.effective_ms:
            return instrument
        return instrument.model_copy(update={"expiry_ms": change.effective_ms})

    def symbols(self) -> list[str]:
        """Return every symbol that is known, in order."""
        return sorted(self._instruments)

    def restatements(self, symbol: str) -> Sequence[Restatement]:
        """Return the symbol's splits and dividends in order of time: a view that later ones appear in."""
        return self._restatements.setdefault(symbol, [])

    def symbol_changes(self) -> list[SymbolChange]:
        """Return the newest change of each symbol that was replaced, in order of time."""
        return sorted(self._changes.values(), key=lambda change: (change.effective_ms, change.symbol))

    def calendars(self) -> set[str]:
        """Return the names of all calendars in use."""
        return {instrument.calendar for instrument in self._instruments.values()}

    async def load_calendars(self) -> None:
        """Build all calendars in use in a thread: the first takes a second, and a group member that does not poll loses its partitions."""
        for name in self.calendars():
            try:
                await asyncio.to_thread(SessionCalendar.of, name)
            except CalendarError as error:
                _log.error("calendar_unknown", calendar=name, problem=str(error))

    def _fold(self, record: Record) -> None:
        try:
            if record.topic == self._events_topic:
                self._fold_event(decode_corporate_event(record.value or b""))
            elif record.value is None:
                self._instruments.pop((record.key or b"").decode(errors="replace"), None)
            else:
                instrument = Instrument.decode(record.value)
                self._instruments[instrument.symbol] = instrument
        except ValidationError as error:
            # One bad record must not stop the symbols whose records are good.
            _log.error("instrument_record_invalid", topic=record.topic, offset=record.offset, problem=error.errors()[0]["msg"])

    def _fold_event(self, event: CorporateEvent) -> None:
        if isinstance(event, SymbolChange):
            self._changes[event.symbol] = event
            if self.on_symbol_change is not None:
                self.on_symbol_change(event)
            return
        known = self._restatements.setdefault(event.symbol, [])
        if any((one.event, one.effective_ms) == (event.event, event.effective_ms) for one in known):
            return
        if isinstance(event, InstrumentEvent):
            scale = math.prod(one.ratio for one in known if isinstance(one, InstrumentEvent)) * event.ratio
            if not 1 / MAX_SPLIT_SCALE <= scale <= MAX_SPLIT_SCALE:
                _log.error(
                    "split_refused", symbol=event.symbol, ratio=event.ratio, problem=f"all splits together would be {scale:g} for one"
                )
                return
        known.append(event)
        # A dividend is paid for the units of its session: a split on the same day comes first.
        known.sort(key=lambda one: (one.effective_ms, one.event != "split"))
        if self.on_restatement is not None:
            self.on_restatement(event)
