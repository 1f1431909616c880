"""Taking partitions over: one path for start, crash and rebalance.

1. `control`, instruments and splits have been read in full before the worker joined its group, and so have the inputs that are read as
   tables (notes, positions). The latter are read on to their ends now: the owner before may have read more of them than this worker.
2. Each partition's books are rebuilt from both input topics without triggering, from far enough back that whatever a prompt can
   show lies inside: as far as the calendars say that bars may show, and from there the look-back grows, as far as what it showed
   makes likely, until every symbol and interval has bars to spare, or the log starts.
3. The partition's own signals and audit are read from where the last commit's metadata points: what has an outcome is not asked
   again, and guard state, open signals and the lanes' last as-of are restored.
4. The trigger policy was evaluated silently on the way, so that what comes after the commit triggers as it would have.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import ceil
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


class Recovery:
    """Takes partitions over."""

    def __init__(self, bus: Bus, settings: Settings, clock: Clock, intake: Intake, books: Books, *, tables: GlobalTables) -> None:
        """Rebuild into `books` through `intake`, and read `tables` on."""
        self._bus = bus
        self._settings = settings
        self._clock = clock
        self._intake = intake
        self._books = books
        self._tables = tables
        self._outputs = tuple(topic_name(topic, settings.run_mode) for topic in (Topic.STRATEGY_SIGNALS, Topic.SIGNAL_AUDIT))

    async def take_over(self, partition: int, committed: Mapping[TopicPartition, Committed | None]) -> Takeover:
        """Rebuild one partition's books; raise OffsetOutOfRangeError when the commit lies outside the log."""
        await self._tables.catch_up()
        async with self._reader() as reader:
            inputs = [TopicPartition(topic, partition) for topic in self._intake.topics]
            begins, ends = await reader.beginning_offsets(inputs), await reader.end_offsets(inputs)
            start = {tp: self._start(committed.get(tp), begins[tp], ends[tp]) for tp in inputs}
            self._refuse_lost(start, begins, ends, committed)
            await self._rebuild(reader, partition, begins, start)
        # On a connection of its own: behind a fetch that waits at the inputs' ends, each of three look-ups took 150 ms.
        async with self._reader() as reader:
            history, read_from, output_ends = await self._read_outputs(reader, partition, start, [committed.get(tp) for tp in inputs])
        return Takeover(partition, start, ends, read_from, output_ends, history)

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
        self, reader: Reader, partition: int, begins: Mapping[TopicPartition, int], start: Mapping[TopicPartition, int]
    ) -> None:
        # A symbol whose session is closed has no bar among the last records of busier ones: time says how far it lies back.
        oldest = await reader.offsets_for_times(dict.fromkeys(start, self._books.oldest_shown_ms(self._clock.now_ms())))
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
        folded, take = 0, self._intake.take
        async for batch in read_batches(reader, {tp: range(offset, stop[tp]) for tp, offset in first.items()}):
            for record in batch:
                take(record, sink)
            folded += len(batch)
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
        self, reader: Reader, partition: int, start: Mapping[TopicPartition, int], committed: Sequence[Committed | None]
    ) -> tuple[PartitionHistory, tuple[int, int], tuple[int, int]]:
        """Read signals and audit from where the commits point; signals also from as far back as one may still be open.

        Commits that somebody else made, such as an operator who moved the group, point nowhere: all outputs are read then.
        """
        signals, audit = outputs = [TopicPartition(topic, partition) for topic in self._outputs]
        begins, ends = await reader.beginning_offsets(outputs), await reader.end_offsets(outputs)
        named = [decode_metadata(held.metadata) for held in committed if held is not None]
        from_signals = [begins[signals] if at is None else at.signals for at in named]
        from_audit = [begins[audit] if at is None else at.audit for at in named]
        read_from = (min([ends[signals], *from_signals]), min([ends[audit], *from_audit]))
        first = {signals: read_from[0], audit: read_from[1]}
        now_ms = self._clock.now_ms()
        since_ms = max(0, now_ms - self._memory_ms())
        recent = (await reader.offsets_for_times({signals: since_ms}))[signals]
        if recent is not None:
            first[signals] = min(first[signals], recent)
        history = PartitionHistory(start, now_ms - self._settings.fusion.max_skew_ms, since_ms)
        async for record in read_offsets(reader, {tp: range(max(begins[tp], offset), ends[tp]) for tp, offset in first.items()}):
            self._note(record, history)
        return history, read_from, (ends[signals], ends[audit])

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
