"""Taking partitions over: one path for start, crash and rebalance.

1. `control`, instruments and splits have been read in full before the worker joined its group, and so have the inputs that are read as
   tables (notes, positions). The latter are read on to their ends now: the owner before may have read more of them than this worker.
2. The signals and audit of all partitions are read from where each one's last commit points (`survey`): what has an outcome is not asked
   again, and guard state, open signals and the lanes' last as-of are restored, before anything is asked of any partition.
3. Each partition's books are rebuilt from both input topics without triggering (`rebuild`), from far enough back that whatever a prompt
   can show lies inside: as far as the calendars say that bars may show, and from there the look-back grows, as far as what it showed
   makes likely, until every symbol and interval has bars to spare, or the log starts.
4. The trigger policy was evaluated silently on the way, so that what comes after the commit triggers as it would have.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import groupby
from math import ceil
from operator import itemgetter
from typing import Final

import structlog
from pydantic import ValidationError

from schemas import AuditRecord, Topic, decode_signal_message, topic_name
from services.core.bus import Bus, Committed, OffsetOutOfRangeError, Reader, Record, TopicPartition
from services.core.bus.topic_reader import read_batches, read_offsets
from services.core.clock import Clock
from services.core.global_tables import GlobalTables
from services.core.settings import Settings
from services.fusion.deliver.commit_metadata import decode_metadata
from services.fusion.deliver.history import PartitionHistory
from services.fusion.state.book import bars_to_rebuild
from services.fusion.state.books import Books
from services.fusion.state.intake import Intake, NullSink

_FIRST_LOOK_BACK: Final = 4_096
_SPARE: Final = 1.1
"""The look-back grows by this much more than what it showed asks for, as records are not spread evenly."""
_MOST_STRETCH: Final = 32
"""It grows by no more than this at once: a symbol with one bar in it says little."""

_TOPIC: Final = itemgetter(0)
"""A record's topic, its first field."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Takeover:
    """Where a partition's work goes on: offsets by topic, where the log ended, and what the partition's own outputs say."""

    partition: int
    start: Mapping[TopicPartition, int]
    ends: Mapping[TopicPartition, int]
    outputs_read_from: tuple[int, int]
    """A commit names these until it has passed the log's end: behind them lie outcomes of records that it has not passed."""
    output_ends: tuple[int, int]
    """Next offsets of signals and audit."""
    history: PartitionHistory

    @property
    def pending(self) -> int:
        """Return how many offsets lie between the commit and the log's end."""
        return sum(end - self.start[tp] for tp, end in self.ends.items())


class Recovery:
    """Takes partitions over: `survey` them, then `rebuild` each."""

    def __init__(self, bus: Bus, settings: Settings, clock: Clock, intake: Intake, books: Books, *, tables: GlobalTables) -> None:
        """Rebuild into `books` through `intake`, and read `tables` on."""
        self._bus = bus
        self._settings = settings
        self._clock = clock
        self._intake = intake
        self._books = books
        self._tables = tables
        self._outputs = tuple(topic_name(topic, settings.run_mode) for topic in (Topic.STRATEGY_SIGNALS, Topic.SIGNAL_AUDIT))

    async def survey(self, partitions: Collection[int], committed: Mapping[TopicPartition, Committed | None]) -> dict[int, Takeover]:
        """Return where the work of each partition goes on; raise OffsetOutOfRangeError when a commit lies outside the log.

        One connection asks about all partitions at once: with one for each, eight partitions took as long as reading 20,000 records.
        """
        await self._tables.catch_up()
        async with self._reader() as reader:
            inputs = [TopicPartition(topic, number) for number in partitions for topic in self._intake.topics]
            begins, ends = await reader.beginning_offsets(inputs), await reader.end_offsets(inputs)
            start = {tp: self._start(committed.get(tp), begins[tp], ends[tp]) for tp in inputs}
            self._refuse_lost(start, begins, ends, committed)
            return await self._read_outputs(reader, partitions, start, ends, committed)

    async def rebuild(self, takeover: Takeover) -> None:
        """Build the books of a partition anew, up to where its work goes on."""
        start = takeover.start
        async with self._reader() as reader:
            begins = await reader.beginning_offsets(list(start))
            # A symbol whose session is closed has no bar among the last records of busier ones: time says how far it lies back.
            oldest = await reader.offsets_for_times(dict.fromkeys(start, self._books.oldest_shown_ms(self._clock.now_ms())))
            await self._rebuild(reader, takeover.partition, begins, start, oldest)

    @asynccontextmanager
    async def _reader(self) -> AsyncIterator[Reader]:
        reader = await self._bus.reader(client_id=f"{self._settings.fusion_group}-recovery")
        try:
            yield reader
        finally:
            await reader.close()

    def _start(self, committed: Committed | None, begin: int, end: int) -> int:
        if committed is not None:
            return committed.offset
        return end if self._settings.fusion.start_from == "latest" else begin

    def _refuse_lost(
        self,
        start: Mapping[TopicPartition, int],
        begins: Mapping[TopicPartition, int],
        ends: Mapping[TopicPartition, int],
        committed: Mapping[TopicPartition, Committed | None],
    ) -> None:
        lost = {}
        for tp, offset in start.items():
            if committed.get(tp) is None:
                continue
            if offset < begins[tp]:
                lost[tp] = begins[tp] - offset
            elif offset > ends[tp]:
                lost[tp] = offset - ends[tp]
        if lost:
            raise OffsetOutOfRangeError(lost)

    async def _rebuild(
        self,
        reader: Reader,
        partition: int,
        begins: Mapping[TopicPartition, int],
        start: Mapping[TopicPartition, int],
        oldest: Mapping[TopicPartition, int | None],
    ) -> None:
        look_back = _FIRST_LOOK_BACK
        sink = NullSink()
        while True:
            first = {tp: max(begins[tp], min(start[tp] - look_back, _or(oldest[tp], start[tp]))) for tp in start}
            self._intake.start_over(partition)
            folded = await self._fold_range(reader, first, start, sink)
            whole = all(first[tp] == begins[tp] for tp in first)
            short = self._falls_short_by(partition)
            if whole or short <= 1:
                _log.info("rebuilt", partition=partition, records=folded, symbols=len(self._books.symbols(partition)), whole_log=whole)
                return
            # Doubling alone would fold most records twice: the log of 1,000 symbols took 1.9 times its own length.
            look_back *= max(2, min(_MOST_STRETCH, ceil(_SPARE * short)))

    async def _fold_range(
        self, reader: Reader, first: Mapping[TopicPartition, int], stop: Mapping[TopicPartition, int], sink: NullSink
    ) -> int:
        folded = 0
        async for batch in read_batches(reader, {tp: range(offset, stop[tp]) for tp, offset in first.items()}):
            for topic, run in groupby(batch, _TOPIC):
                for _ in self._intake.fold(topic, run, sink):
                    pass  # what became of the others is in the audit and among the dead letters already
            folded += len(batch)
            # A poll of records that are there already does not wait: other partitions are decided on meanwhile.
            await asyncio.sleep(0)
        return folded

    def _falls_short_by(self, partition: int) -> float:
        """Return how many times as far back every symbol's every interval has bars enough that nothing older shows in a prompt."""
        books = filter(None, map(self._books.get, self._books.symbols(partition)))
        return max(
            (
                bars_to_rebuild(self._settings.fusion, interval) / max(1, bars.total)
                for book in books
                for interval, bars in book.bars.items()
            ),
            default=0.0,
        )

    async def _read_outputs(
        self,
        reader: Reader,
        partitions: Collection[int],
        start: Mapping[TopicPartition, int],
        ends: Mapping[TopicPartition, int],
        committed: Mapping[TopicPartition, Committed | None],
    ) -> dict[int, Takeover]:
        """Read signals and audit from where the commits point; signals also from as far back as one may still be open.

        Commits that somebody else made, such as an operator who moved the group, point nowhere: all outputs are read then.
        """
        outputs = [TopicPartition(topic, number) for number in partitions for topic in self._outputs]
        output_begins, output_ends = await reader.beginning_offsets(outputs), await reader.end_offsets(outputs)
        now_ms = self._clock.now_ms()
        since_ms = max(0, now_ms - self._memory_ms())
        recent = await reader.offsets_for_times({tp: since_ms for tp in outputs if tp.topic == self._outputs[0]})
        takeovers: dict[int, Takeover] = {}
        wanted: dict[TopicPartition, range] = {}
        for number in partitions:
            inputs = [TopicPartition(topic, number) for topic in self._intake.topics]
            signals, audit = (TopicPartition(topic, number) for topic in self._outputs)
            named = [decode_metadata(held.metadata) for tp in inputs if (held := committed.get(tp)) is not None]
            from_signals = [output_begins[signals] if at is None else at.signals for at in named]
            from_audit = [output_begins[audit] if at is None else at.audit for at in named]
            read_from = (min([output_ends[signals], *from_signals]), min([output_ends[audit], *from_audit]))
            first = {signals: min(read_from[0], _or(recent[signals], read_from[0])), audit: read_from[1]}
            wanted |= {tp: range(max(output_begins[tp], offset), output_ends[tp]) for tp, offset in first.items()}
            begun = {tp: start[tp] for tp in inputs}
            history = PartitionHistory(begun, now_ms - self._settings.fusion.max_skew_ms, since_ms)
            ended = (output_ends[signals], output_ends[audit])
            takeovers[number] = Takeover(number, begun, {tp: ends[tp] for tp in inputs}, read_from, ended, history)
        async for record in read_offsets(reader, wanted):
            self._note(record, takeovers[record.partition].history)
        return takeovers

    def _memory_ms(self) -> int:
        """Return for how long a signal matters after it was published."""
        fusion = self._settings.fusion
        return max(fusion.cool_down_ms, fusion.flip_flop_window_ms, *(fusion.entry_validity(interval) for interval in fusion.intervals))

    def _note(self, record: Record, history: PartitionHistory) -> None:
        try:
            value = record.value or b""
            history.add(decode_signal_message(value) if record.topic == self._outputs[0] else AuditRecord.decode(value))
        except ValidationError as error:
            _log.warning("own_output_unreadable", topic=record.topic, offset=record.offset, problem=error.errors()[0]["msg"])


def _or(offset: int | None, otherwise: int) -> int:
    return otherwise if offset is None else offset
