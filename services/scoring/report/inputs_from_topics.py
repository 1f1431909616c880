"""Reads the report's inputs from the topics: outcomes first, then the bars, corporate events and signals that belong to them.

Times are market times. No record is appended before its market time, so reading starts at the first record appended since then. It
ends at the end of the topic, as recorded data may be appended years later.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final, TypeVar

from pydantic import ValidationError
from rich.progress import Progress

from schemas import (
    Instrument,
    MarketFeatures,
    Message,
    Restatement,
    Signal,
    SignalOutcome,
    SymbolChange,
    Topic,
    decode_corporate_event,
    decode_signal_message,
    topic_name,
)
from services.core.bus import Bus, Reader, Record
from services.core.bus.topic_reader import TimeRange, offsets_within, partitions_of, read_offsets
from services.core.decode import Refused, accepted_modes, decode
from services.core.restatement import restating
from services.core.settings import Settings
from services.scoring.report.input_selection import ClosedBars, OutcomeFilter, ReportSources, SelectedOutcomes, SignalFacts, distinct

_CLIENT: Final = "aquiline-score-report"
_SKEW_MS: Final = 3_600_000
"""How far a producer's clock may be ahead of the broker's without its records being missed."""
M = TypeVar("M", bound=Message)


async def read_topics(bus: Bus, settings: Settings, selected: OutcomeFilter, progress: Progress) -> ReportSources:
    """Return the selected inputs from the topics of the settings' run mode; raise BusError."""
    reader = await bus.reader(client_id=_CLIENT)
    try:
        return await _Reading(bus, reader, settings, progress).read(selected)
    finally:
        await reader.close()


async def read_outcomes(bus: Bus, settings: Settings, selected: OutcomeFilter, progress: Progress) -> list[SignalOutcome]:
    """Return the selected outcomes alone; raise BusError."""
    reader = await bus.reader(client_id=_CLIENT)
    try:
        return await _Reading(bus, reader, settings, progress).outcomes(selected)
    finally:
        await reader.close()


class _Reading:
    def __init__(self, bus: Bus, reader: Reader, settings: Settings, progress: Progress) -> None:
        self._bus = bus
        self._reader = reader
        self._settings = settings
        self._progress = progress
        self._refused: dict[str, tuple[int, str]] = {}

    async def outcomes(self, selected: OutcomeFilter) -> list[SignalOutcome]:
        found = self._messages(Topic.SIGNAL_OUTCOMES, SignalOutcome, selected.since_ms)
        return [one async for one in found if selected.accepts(one)]

    async def read(self, selected: OutcomeFilter) -> ReportSources:
        outcomes = SelectedOutcomes(await self.outcomes(selected))
        notes = []
        bars, signals, changes = ClosedBars(), SignalFacts(), list[Signal]()
        restatements: list[Restatement] = []
        if outcomes.all:
            async for bar in self._messages(Topic.MARKET_FEATURES, MarketFeatures, outcomes.start_ms):
                if outcomes.needs_bar(bar):
                    bars.add(bar)
            events = [one async for one in self._events() if one.symbol in outcomes.symbols]
            restatements = restating(events, {one.symbol: one async for one in self._messages(Topic.INSTRUMENTS, Instrument, None)})
            async for record in self._records(Topic.STRATEGY_SIGNALS, None if selected.since_ms is None else outcomes.start_ms):
                self._add(signals, changes, outcomes, record)
        else:
            notes.append(
                f"topic {self._name(Topic.SIGNAL_OUTCOMES)!r} on {self._bus.address} has no outcome of these symbols and this time; "
                "check that `python -m services.scoring` runs, in this run_mode"
            )
        if outcomes.all and not bars.by_symbol():
            notes.append(f"topic {self._name(Topic.MARKET_FEATURES)!r} no longer holds the outcomes' bars; the report has no baselines")
        notes += [
            f"{count:,} records of topic {topic!r} could not be read and are skipped; the first: {detail}"
            for topic, (count, detail) in self._refused.items()
        ]
        facts = {
            "Read from": f"{self._bus.address}: {self._name(Topic.SIGNAL_OUTCOMES)}, {self._name(Topic.MARKET_FEATURES)}",
            **signals.facts(distinct(outcomes.all)),
        }
        return ReportSources(outcomes.all, bars.by_symbol(), restatements, changes, facts, notes)

    def _name(self, topic: Topic) -> str:
        return topic_name(topic, self._settings.run_mode)

    def _add(self, signals: SignalFacts, changes: list[Signal], outcomes: SelectedOutcomes, record: Record) -> None:
        try:
            message = decode_signal_message(record.value or b"")
        except ValueError as error:
            self._refuse(record, str(error).partition("\n")[0])
            return
        if isinstance(message, Signal) and outcomes.has_signal(message):
            signals.add(message)
        elif isinstance(message, Signal) and outcomes.needs_change(message):
            changes.append(message)

    async def _messages(self, topic: Topic, model: type[M], since_ms: int | None) -> AsyncIterator[M]:
        modes, most = accepted_modes(self._settings.run_mode), self._settings.bus.max_record_bytes
        async for record in self._records(topic, since_ms):
            if record.value is None and topic is Topic.INSTRUMENTS:
                continue  # deleted
            message = decode(model, record, modes, most)
            if isinstance(message, Refused):
                self._refuse(record, message.detail)
            else:
                yield message

    async def _events(self) -> AsyncIterator[Restatement]:
        """Yield the splits and dividends."""
        modes = accepted_modes(self._settings.run_mode)
        async for record in self._records(Topic.INSTRUMENT_EVENTS, None):
            try:
                event = decode_corporate_event(record.value or b"")
            except ValidationError as error:
                self._refuse(record, error.errors(include_url=False)[0]["msg"])
                continue
            if not isinstance(event, SymbolChange) and event.run_mode in modes:
                yield event

    def _refuse(self, record: Record, detail: str) -> None:
        count, first = self._refused.get(record.topic, (0, f"partition {record.partition}, offset {record.offset}: {detail}"))
        self._refused[record.topic] = (count + 1, first)

    async def _records(self, topic: Topic, since_ms: int | None) -> AsyncIterator[Record]:
        """Yield the records appended since then, less the tolerated clock skew, to the present end of the topic."""
        name = self._name(topic)
        times = TimeRange(None if since_ms is None else max(0, since_ms - _SKEW_MS))
        offsets = await offsets_within(self._reader, await partitions_of(self._bus, name), times)
        task = self._progress.add_task(name, total=sum(map(len, offsets.values())))
        async for record in read_offsets(self._reader, offsets, lambda done, _: self._progress.update(task, completed=done)):
            yield record
