"""What the report is made from, out of the topics: outcomes first, then the bars, splits and signals that belong to them.

Times asked for are the market's. No record is appended before its own market time, so that reading can begin at the first one
appended since; where it has to end, append times cannot say, as recorded data are appended years later.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final, TypeVar

from rich.progress import Progress

from schemas import InstrumentEvent, MarketFeatures, Message, Signal, SignalOutcome, Topic, decode_signal_message, topic_name
from services.core.bus import Bus, BusError, Reader, Record, TopicPartition
from services.core.decode import Refused, accepted_modes, decode
from services.core.settings import Settings
from services.scoring.report.input_selection import ClosedBars, OutcomeFilter, ReportSources, SelectedOutcomes, SignalFacts, distinct

_CLIENT: Final = "aquiline-score-report"
_POLL_MS: Final = 500
_QUIET_POLLS: Final = 60
"""Polls without a record, before the end, after which the broker is taken to be gone."""
_SKEW_MS: Final = 3_600_000
"""How far a producer's clock may be ahead of the broker's and its records still be found."""
M = TypeVar("M", bound=Message)


async def read_topics(bus: Bus, settings: Settings, wanted: OutcomeFilter, progress: Progress) -> ReportSources:
    """Return what the topics of the settings' run mode hold of what is wanted; raise BusError."""
    reader = await bus.reader(client_id=_CLIENT)
    try:
        return await _Reading(bus, reader, settings, progress).found(wanted)
    finally:
        await reader.close()


class _Reading:
    def __init__(self, bus: Bus, reader: Reader, settings: Settings, progress: Progress) -> None:
        self._bus = bus
        self._reader = reader
        self._settings = settings
        self._progress = progress
        self._refused: dict[str, tuple[int, str]] = {}

    async def found(self, wanted: OutcomeFilter) -> ReportSources:
        outcomes = SelectedOutcomes(
            [one async for one in self._messages(Topic.SIGNAL_OUTCOMES, SignalOutcome, wanted.since_ms) if wanted.outcome(one)]
        )
        notes = []
        bars, splits, signals = ClosedBars(), [], SignalFacts()
        if outcomes.all:
            async for bar in self._messages(Topic.MARKET_FEATURES, MarketFeatures, outcomes.start_ms):
                if outcomes.bar(bar):
                    bars.add(bar)
            splits = [one async for one in self._messages(Topic.INSTRUMENT_EVENTS, InstrumentEvent, None) if one.symbol in outcomes.symbols]
            async for record in self._records(Topic.STRATEGY_SIGNALS, None if wanted.since_ms is None else outcomes.start_ms):
                self._add(signals, outcomes, record)
        else:
            notes.append(
                f"topic {self._name(Topic.SIGNAL_OUTCOMES)!r} on {self._bus.address} has no outcome of the symbols and the time asked for; "
                "is `python -m services.scoring` running, and run_mode the one that it writes in?"
            )
        if outcomes.all and not bars.by_symbol():
            notes.append(f"topic {self._name(Topic.MARKET_FEATURES)!r} no longer has the outcomes' bars: there is nothing to compare with")
        notes += [
            f"{count:,} records of topic {topic!r} could not be read and are left out; the first: {detail}"
            for topic, (count, detail) in self._refused.items()
        ]
        facts = {
            "Read from": f"{self._bus.address}: {self._name(Topic.SIGNAL_OUTCOMES)}, {self._name(Topic.MARKET_FEATURES)}",
            **signals.facts(distinct(outcomes.all)),
        }
        return ReportSources(outcomes.all, bars.by_symbol(), splits, facts, notes)

    def _name(self, topic: Topic) -> str:
        return topic_name(topic, self._settings.run_mode)

    def _add(self, signals: SignalFacts, outcomes: SelectedOutcomes, record: Record) -> None:
        try:
            message = decode_signal_message(record.value or b"")
        except ValueError as error:
            self._refuse(record, str(error).partition("\n")[0])
            return
        if isinstance(message, Signal) and outcomes.signal(message):
            signals.add(message)

    async def _messages(self, topic: Topic, model: type[M], since_ms: int | None) -> AsyncIterator[M]:
        modes, most = accepted_modes(self._settings.run_mode), self._settings.bus.max_record_bytes
        async for record in self._records(topic, since_ms):
            message = decode(model, record, modes, most)
            if isinstance(message, Refused):
                self._refuse(record, message.detail)
            else:
                yield message

    def _refuse(self, record: Record, detail: str) -> None:
        count, first = self._refused.get(record.topic, (0, f"partition {record.partition}, offset {record.offset}: {detail}"))
        self._refused[record.topic] = (count + 1, first)

    async def _records(self, topic: Topic, since_ms: int | None) -> AsyncIterator[Record]:
        """Yield the records appended since, less the clocks' skew, to where the topic ends now."""
        name = self._name(topic)
        partitions = await self._partitions(name)
        ends = await self._reader.end_offsets(partitions)
        start = await self._reader.beginning_offsets(partitions)
        if since_ms is not None:
            found = await self._reader.offsets_for_times(dict.fromkeys(partitions, max(0, since_ms - _SKEW_MS)))
            start = {one: ends[one] if at is None else at for one, at in found.items()}
        task = self._progress.add_task(name, total=sum(ends[one] - start[one] for one in partitions))
        await self._reader.read(start)
        quiet = 0
        while any(self._reader.position(one) < ends[one] for one in partitions):
            records = await self._reader.poll(timeout_ms=_POLL_MS, max_records=2_000)
            quiet = 0 if records else quiet + 1
            if quiet == _QUIET_POLLS:
                raise BusError(
                    f"{self._bus.address} has not sent the rest of {name!r} for {quiet * _POLL_MS // 1_000} s; is the broker up?"
                )
            for record in records:
                if record.offset < ends[TopicPartition(record.topic, record.partition)]:
                    yield record
            done = sum(min(self._reader.position(one), ends[one]) - start[one] for one in partitions)
            self._progress.update(task, completed=done)

    async def _partitions(self, topic: str) -> list[TopicPartition]:
        admin = await self._bus.admin()
        try:
            found = await admin.describe([topic])
        finally:
            await admin.close()
        if topic not in found:
            raise BusError(
                f"topic {topic!r} does not exist on {self._bus.address}; is run_mode the one that was written in? "
                "`aquiline topics create` makes what is missing"
            )
        return [TopicPartition(topic, number) for number in range(found[topic].partitions)]
