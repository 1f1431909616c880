"""Lag behind the ends of the inputs, asked of the broker outside the consumer, which may stall silently."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

import structlog

from schemas import live_name
from services.core import metrics
from services.core.bus import Bus, BusError, Reader, TopicPartition

_INTERVAL_S: Final = 1.0

_log = structlog.get_logger()


class LagMonitor:
    """Exports lag and progress of the partitions that a service holds."""

    def __init__(self, bus: Bus, client_id: str, done: Callable[[], Mapping[TopicPartition, int]]) -> None:
        """`done` says, for each partition held now, the offset below which all is done."""
        self._bus = bus
        self._client_id = client_id
        self._done = done
        self._shown: set[TopicPartition] = set()

    async def run(self) -> None:
        """Update every second, through outages of the broker; cancel to end."""
        reader: Reader | None = None
        try:
            while True:
                try:
                    reader = reader or await self._bus.reader(client_id=self._client_id)
                    self._show(await reader.end_offsets(sorted(self._done())))
                except BusError as error:
                    _log.info("lag_unknown", error=str(error))
                await asyncio.sleep(_INTERVAL_S)
        finally:
            if reader is not None:
                await reader.close()

    def _show(self, ends: Mapping[TopicPartition, int]) -> None:
        done = self._done()  # now: while the broker was asked, work went on and partitions may have moved
        held = {tp: done[tp] for tp in ends if tp in done}
        for tp in self._shown - held.keys():
            metrics.LAG_RECORDS.remove(*_labels(tp))
            metrics.WATERMARK_OFFSET.remove(*_labels(tp))
        for tp, offset in held.items():
            metrics.LAG_RECORDS.labels(*_labels(tp)).set(max(0, ends[tp] - offset))
            metrics.WATERMARK_OFFSET.labels(*_labels(tp)).set(offset)
        self._shown = set(held)


def _labels(tp: TopicPartition) -> tuple[str, str]:
    return live_name(tp.topic), str(tp.partition)
