"""Folds polled batches: each record is folded, ignored or dead-lettered, counted, and its offset noted, in the order of its partition."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import Final

import structlog

from services.core.bus import Consumer, Record, TopicPartition
from services.core.decode import Refused
from services.core.instruments import Instruments
from services.fusion.deliver.accounts import RecordCounter
from services.fusion.deliver.ledger import Ledger
from services.fusion.deliver.partitions import Partitions
from services.fusion.observe.spans import TriggerSpans
from services.fusion.state.intake import Intake, Sink

_TABLES_S: Final = 1.0

_log = structlog.get_logger()

_PLACE: Final = itemgetter(0, 1)
"""A record's topic and partition, its first two fields: by name they take twice as long."""


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
        for (topic, partition), batch in groupby(records, _PLACE):
            watermark = self._partitions.reading(TopicPartition(topic, partition))
            if watermark is None:
                continue  # handed back between fetch and here; its next owner reads it again
            folded, traced = 0, self._spans.enabled
            for record in batch:
                taken = self._intake.take(record, sink, may_wait=True)
                if taken == "awaits_tables":
                    await self._read_tables()
                    if self._partitions.reading(watermark.partition) is not watermark:
                        break  # handed back meanwhile; its next owner reads the record again
                    taken = self._intake.take(record, sink)
                # After the fold: a commit must not pass a record that ended the worker.
                watermark.seen(record.offset)
                if taken == "folded":
                    folded += 1
                    if traced and record.headers:
                        self._spans.folded(record)
                elif isinstance(taken, Refused):
                    self._ledger.dead_letter(record, taken, watermark)
                    self._counter.dead_letter(topic, taken.reason)
                else:
                    self._counter.count(topic, taken)
            self._counter.count(topic, "folded", folded)
        self._partitions.folded_up_to(self._position)
        self._counter.flush()

    async def _read_tables(self) -> None:
        """Read instruments and splits on to where they end now, as far as the broker answers in time."""
        try:
            async with asyncio.timeout(_TABLES_S):
                await self._instruments.refresh_for_record()
        except TimeoutError:
            _log.warning("instruments_slow", waited_s=_TABLES_S)
