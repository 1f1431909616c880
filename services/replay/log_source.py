"""The log that prompts are rebuilt from: each symbol's market and vision records, and its instrument, splits and dividends.

It is read from an exported log, which is held in memory, or from the topics, one partition at a time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from pydantic import ValidationError

from schemas import Instrument, OffsetRef, Restatement, RunMode, SymbolChange, Topic, decode_corporate_event, topic_name
from services.core.bus import Bus, Reader, Record, TopicPartition
from services.core.bus.topic_reader import TimeRange, offsets_within, partitions_of, read_offsets, read_within
from services.core.exported_log import Line, LogFileError, read_log
from services.core.settings import Settings
from services.core.table_inputs import table_specs
from services.core.topic_admin import existing_topics
from services.fusion.state.books import Books

_OFFSET: Final = attrgetter("offset")


def reference_topics() -> tuple[str, ...]:
    """Return the topics of one partition, which every symbol's prompts may rest on; raise InputError."""
    return (Topic.INSTRUMENTS, Topic.INSTRUMENT_EVENTS, *table_specs())


class VersionedRecord(NamedTuple):
    """One version of an instrument, or one split or dividend, with its append time."""

    appended_ms: int
    instrument: Instrument | None = None
    restatement: Restatement | None = None


@dataclass(slots=True)
class ReferenceData:
    """Every version of every instrument, every split and dividend, and the records of inputs read as tables, in order of offset."""

    instruments: dict[str, list[VersionedRecord]] = field(default_factory=dict)
    restatements: dict[str, list[VersionedRecord]] = field(default_factory=dict)
    tables: dict[tuple[str, int, int], Record] = field(default_factory=dict)
    """Records of inputs that are read as tables, by topic, partition and offset."""

    def take(self, record: Record, run_mode: RunMode) -> None:
        """Add a record of one of these topics; unreadable ones are skipped, as the worker does."""
        if record.topic in {topic_name(topic, run_mode) for topic in table_specs()}:
            self.tables[record.topic, record.partition, record.offset] = record
            return
        try:
            if record.topic == topic_name(Topic.INSTRUMENT_EVENTS, run_mode):
                event = decode_corporate_event(record.value or b"")
                if not isinstance(event, SymbolChange):
                    self.restatements.setdefault(event.symbol, []).append(VersionedRecord(record.timestamp_ms, restatement=event))
            elif record.value is not None:
                instrument = Instrument.decode(record.value)
                self.instruments.setdefault(instrument.symbol, []).append(VersionedRecord(record.timestamp_ms, instrument=instrument))
        except ValidationError:
            return

    def of_table(self, ref: OffsetRef) -> Record | None:
        """Return a record of an input read as a table, None when it is not among these."""
        return self.tables.get((ref.topic, ref.partition, ref.offset))


@dataclass(slots=True)
class SymbolLog:
    """One symbol's records of both inputs, in order of offset."""

    market: list[Record] = field(default_factory=list)
    vision: list[Record] = field(default_factory=list)


@dataclass(slots=True)
class PartitionLog:
    """One partition's records by symbol."""

    whole: bool
    """Whether no record was ever appended before these."""
    more: bool = False
    """Whether the log holds older records."""
    symbols: dict[str, SymbolLog] = field(default_factory=dict)

    def find(self, symbol: str, topic: str, offset: int, run_mode: RunMode) -> Record | None:
        """Return a record of `symbol`, None when it is not among these."""
        log = self.symbols.get(symbol)
        if log is None:
            return None
        records = log.market if topic == topic_name(Topic.MARKET_FEATURES, run_mode) else log.vision
        at = bisect_left(records, offset, key=_OFFSET)
        return records[at] if at < len(records) and records[at].offset == offset and records[at].topic == topic else None


class PartitionRequest(NamedTuple):
    """Records of a partition that prompts of `symbols` show, for decisions from `first_ms` on, below the two offsets."""

    symbols: frozenset[str]
    first_ms: int
    market_stop: int
    vision_stop: int
    stretch: int = 1
    """How many times as far back to read as the calendars require."""


class OffsetRange(NamedTuple):
    """Offsets of a partition: the first that the log holds, and the range to read, without `stop`."""

    partition: TopicPartition
    begin: int
    first: int
    stop: int


class LogSource(Protocol):
    """A source of the log."""

    name: str
    settings: Settings
    configurations: Sequence[Settings]
    """The settings of every worker that decided on the log, `settings` first."""
    reference: ReferenceData
    damaged: list[str]
    """A sentence for each damaged record."""

    async def partition(self, number: int, wanted: PartitionRequest) -> PartitionLog:
        """Return a partition's records; raise BusError."""
        ...


class FileLog:
    """An exported log, held in memory."""

    def __init__(self, file: Path, settings: Settings | None) -> None:
        """Read `file`; `settings` replace those in its header. Raise LogFileError."""
        header, lines = read_log(file)
        self.name = file.name
        self.settings = header.settings if settings is None else settings
        self.configurations: Sequence[Settings] = [header.settings, *header.later_settings] if settings is None else [settings]
        self.run_mode = header.settings.run_mode
        if self.settings.run_mode is not self.run_mode:
            raise LogFileError(
                f"{file} was exported in run mode {self.run_mode.value}, and the settings have {self.settings.run_mode.value}; "
                "use the settings of the workers that wrote it"
            )
        self.reference = ReferenceData()
        self.damaged: list[str] = []
        self._reference_topics = {topic_name(topic, self.run_mode) for topic in reference_topics()}
        self._partitions: dict[int, PartitionLog] = {}
        self._whole = header.whole
        for record in self._readable(lines):
            self._take(record)
        for partition in self._partitions.values():
            for log in partition.symbols.values():
                log.market.sort(key=_OFFSET)
                log.vision.sort(key=_OFFSET)

    async def partition(self, number: int, wanted: PartitionRequest) -> PartitionLog:
        """Return every record of a partition."""
        del wanted
        return self._partitions.get(number) or PartitionLog(self._whole)

    def all_records(self, until_ms: int | None) -> list[Record]:
        """Return every record of both inputs appended before `until_ms`, in order of topic, partition and offset."""
        logs = [log for _, held in sorted(self._partitions.items()) for log in held.symbols.values()]
        records = [one for log in logs for one in (*log.market, *log.vision) if until_ms is None or one.timestamp_ms < until_ms]
        return sorted(records, key=lambda record: (record.topic, record.partition, record.offset))

    def _readable(self, lines: Iterable[Line]) -> Iterable[Record]:
        for line in lines:
            if line.problem is not None:
                self.damaged.append(f"{self.name}, line {line.number}: {line.problem}")
            if line.record is not None:
                yield line.record

    def _take(self, record: Record) -> None:
        if record.topic in self._reference_topics:
            self.reference.take(record, self.run_mode)
            return
        partition = self._partitions.setdefault(record.partition, PartitionLog(self._whole))
        _add(partition, record, self.run_mode)


class TopicLog:
    """The topics."""

    def __init__(self, bus: Bus, settings: Settings) -> None:
        """Read from `bus`; call `open` first."""
        self.name = bus.address
        self.settings = settings
        self.configurations: Sequence[Settings] = [settings]
        self.reference = ReferenceData()
        self.damaged: list[str] = []
        self.reference_records: list[Record] = []
        """Every record of the topics of instruments, corporate events and tables."""
        self._bus = bus
        self._reader: Reader

    async def open(self) -> None:
        """Read all instruments, corporate events and tables; raise BusError."""
        self._reader = await self._bus.reader(client_id="aquiline-replay")
        for name in await existing_topics(self._bus, reference_topics(), self.settings.run_mode):
            async for record in read_within(self._bus, self._reader, name, TimeRange()):
                self.reference.take(record, self.settings.run_mode)
                self.reference_records.append(record)

    async def close(self) -> None:
        """Close."""
        await self._reader.close()

    async def partition(self, number: int, wanted: PartitionRequest) -> PartitionLog:
        """Return a partition's records, from as far back as the prompts reach."""
        ranges = await self.ranges(number, wanted)
        market = ranges[0]
        found = PartitionLog(whole=market.first == 0, more=market.first > market.begin)
        async for record in self.records(ranges):
            if (record.key or b"").decode(errors="replace") in wanted.symbols:
                _add(found, record, self.settings.run_mode)
        return found

    async def all_records(self, since_ms: int | None, until_ms: int | None) -> list[Record]:
        """Return every record of both inputs appended before `until_ms`, from as far before `since_ms` as prompts reach."""
        market, vision = (topic_name(topic, self.settings.run_mode) for topic in (Topic.MARKET_FEATURES, Topic.VISION_FEATURES))
        records: list[Record] = []
        for _, number in await partitions_of(self._bus, market):
            both = [TopicPartition(topic, number) for topic in (market, vision)]
            offsets = await offsets_within(self._reader, both, TimeRange(None, until_ms))
            wanted = PartitionRequest(frozenset(), since_ms or 0, *(offsets[tp].stop for tp in both))
            records += [record async for record in self.records(await self.ranges(number, wanted))]
        return records

    async def ranges(self, number: int, wanted: PartitionRequest) -> list[OffsetRange]:
        """Return the ranges to read of a partition: its market records, then its vision records."""
        oldest_ms = Books(self.settings.fusion, _Latest(self.reference)).oldest_shown_ms(wanted.first_ms)
        since_ms = max(0, wanted.first_ms - wanted.stretch * (wanted.first_ms - oldest_ms))
        ranges = []
        for topic, stop in ((Topic.MARKET_FEATURES, wanted.market_stop), (Topic.VISION_FEATURES, wanted.vision_stop)):
            tp = TopicPartition(topic_name(topic, self.settings.run_mode), number)
            first = (await offsets_within(self._reader, [tp], TimeRange(since_ms)))[tp].start
            begin = (await self._reader.beginning_offsets([tp]))[tp]
            ranges.append(OffsetRange(tp, begin, min(first, stop), stop))
        return ranges

    async def records(self, ranges: Iterable[OffsetRange]) -> AsyncIterator[Record]:
        """Yield the records of the ranges, one range after the other."""
        for one in ranges:
            async for record in read_offsets(self._reader, {one.partition: range(one.first, one.stop)}):
                yield record


class _Latest:
    """The latest reference data, in the form that `Books` looks it up."""

    def __init__(self, reference: ReferenceData) -> None:
        self._reference = reference

    def get(self, symbol: str) -> Instrument | None:
        versions = self._reference.instruments.get(symbol)
        return versions[-1].instrument if versions else None

    def restatements(self, symbol: str) -> list[Restatement]:
        return [version.restatement for version in self._reference.restatements.get(symbol, ()) if version.restatement is not None]

    def calendars(self) -> set[str]:
        return {one.calendar for symbol in self._reference.instruments if (one := self.get(symbol)) is not None}


def _add(partition: PartitionLog, record: Record, run_mode: RunMode) -> None:
    log = partition.symbols.setdefault((record.key or b"").decode(errors="replace"), SymbolLog())
    if record.topic == topic_name(Topic.MARKET_FEATURES, run_mode):
        log.market.append(record)
    elif record.topic == topic_name(Topic.VISION_FEATURES, run_mode):
        log.vision.append(record)
