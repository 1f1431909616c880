"""Folds polled batches: each record is folded, ignored or dead-lettered, counted, and its offset noted, in the order of its partition."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter, length_hint
from typing import Final

import structlog

from services.core.bus import Consumer, Record, TopicPartition
from services.core.decode import Refused
from services.core.instruments import Instruments
from services.fusion.deliver.accounts import RecordCounter
from services.fusion.deliver.ledger import Ledger
from services.fusion.deliver.partitions import Partitions
from services.fusion.deliver.watermark import PartitionWatermark
from services.fusion.observe.spans import TriggerSpans
from services.fusion.state.intake import Intake, Sink

_TABLES_S: Final = 1.0

_log = structlog.get_logger()

_TOPIC: Final = itemgetter(0)
_PARTITION: Final = itemgetter(1)
"""A record's first two fields. One after the other: to make and compare pairs of both takes twice as long."""


class BatchFolder:
    """Takes each record of a batch to its book, or to the dead letters."""

    def __init__(
        self,
        consumer: Consumer,
        partitions: Partitions,
        instruments: Instruments,
        intake: Intake,
        *,
        ledger: Ledger,
        counter: RecordCounter,
        spans: TriggerSpans,
    ) -> None:
        """Fold what `consumer` returned of owned `partitions`; `instruments` are read on for records that await them."""
        self._position = consumer.position
        self._partitions = partitions
        self._instruments = instruments
        self._intake = intake
        self._ledger = ledger
        self._counter = counter
        self._spans = spans

    async def fold(self, records: Sequence[Record], sink: Sink) -> None:
        """Fold a polled batch, `sink` taking its triggers; raise PoisonedStreamError when too many of the last records are bad."""
        for partition, run in _runs(records):
            watermark = self._partitions.reading(partition)
            if watermark is None:
                continue  # handed back between fetch and here; its next owner reads it again
            left = self._fold_run(run, watermark, sink, may_wait=True)
            while left:
                await self._read_tables()
                if self._partitions.reading(partition) is not watermark:
                    break  # handed back meanwhile; its next owner reads the record again
                self._fold_run(left[:1], watermark, sink, may_wait=False)
                left = self._fold_run(left[1:], watermark, sink, may_wait=True)
        self._partitions.folded_up_to(self._position)
        self._counter.flush()

    def _fold_run(self, records: Sequence[Record], watermark: PartitionWatermark, sink: Sink, *, may_wait: bool) -> Sequence[Record]:
        """Fold records of one partition, as far as none awaits tables; return that one and those after it.

        Watermark and counts move once for all records that are folded: only those that are not take a step of their own.
        """
        if not records:
            return records
        topic, rest, others = records[0].topic, iter(records), set[int]()
        left: Sequence[Record] = ()
        watermark.advance(records[0].offset)
        try:
            for record, taken in self._intake.fold(topic, rest, sink, may_wait=may_wait):
                if taken == "awaits_tables":
                    left = (record, *rest)
                    break
                others.add(record.offset)
                watermark.advance(record.offset + 1)
                if isinstance(taken, Refused):
                    self._ledger.dead_letter(record, taken, watermark)
                    self._counter.dead_letter(topic, taken.reason)
                else:
                    self._counter.count(topic, taken)
        except BaseException:
            # A commit must not pass the record that ends the worker, and may pass those before it.
            failed = records[len(records) - length_hint(rest) - 1]
            watermark.advance(max(watermark.next_offset, failed.offset))
            raise
        done = records[: len(records) - len(left)]
        if done:
            watermark.advance(done[-1].offset + 1)
            self._counter.count(topic, "folded", len(done) - len(others))
            if self._spans.enabled:
                self._spans.folded(record for record in done if record.offset not in others)
        return left

    async def _read_tables(self) -> None:
        """Read instruments and splits on to where they end now, as far as the broker answers in time."""
        try:
            async with asyncio.timeout(_TABLES_S):
                await self._instruments.refresh_for_record()
        except TimeoutError:
            _log.warning("instruments_slow", waited_s=_TABLES_S)


def _runs(records: Sequence[Record]) -> Iterator[tuple[TopicPartition, Sequence[Record]]]:
    """Split a polled batch where its partition changes."""
    for topic, of_topic in groupby(records, _TOPIC):
        for partition, run in groupby(of_topic, _PARTITION):
            yield TopicPartition(topic, partition), list(run)
