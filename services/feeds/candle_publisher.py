"""Publishes a feed's instruments and candles, and skips candles that the topic already has, whoever published them.

Records are sent in small batches: a producer that loses a record drops its whole buffer, so no later bar is appended after a missing one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Sequence
from typing import Final

import structlog
from pydantic import ValidationError

from schemas import Candle, Instrument, RunMode, Topic, topic_name
from services.core.bus import Bus, Position, Producer
from services.core.bus.topic_reader import TimeRange, offsets_within, partitions_of, read_offsets
from services.core.metrics import FEED_CANDLES
from services.feeds.published_bars import BarStatus, PublishedBars

_TAILS: Final = (1_000, 20_000, 500_000)
"""How many records are read back from each partition to find the last bars; the next size is used when a series was not found."""
_TOGETHER: Final = 100

_log = structlog.get_logger()


class CandlePublisher:
    """Publishes to the topics of one run mode."""

    def __init__(self, bus: Bus, run_mode: RunMode, client_id: str) -> None:
        """Use `bus`; the caller closes it."""
        self._bus = bus
        self._client_id = client_id
        self._candles = topic_name(Topic.CANDLES, run_mode)
        self._instruments = topic_name(Topic.INSTRUMENTS, run_mode)
        self._producer: Producer | None = None
        self.published = PublishedBars()
        """What the topic of candles holds."""

    async def start(self, series: Collection[tuple[str, str]]) -> None:
        """Read the last bars of `series` (pairs of symbol and interval) from the topic; raise BusError."""
        if self._producer is None:
            self._producer = await self._bus.producer(client_id=self._client_id)
        reader = await self._bus.reader(client_id=f"{self._client_id}-tail")
        try:
            whole = await offsets_within(reader, await partitions_of(self._bus, self._candles), TimeRange())
            for tail in _TAILS:
                published = PublishedBars()
                async for record in read_offsets(reader, {tp: all_[-tail:] for tp, all_ in whole.items()}):
                    try:
                        candle = Candle.decode(record.value or b"")
                    except ValidationError:
                        continue  # an invalid record of another producer; its consumers dead-letter it
                    if (candle.symbol, candle.interval) in series:
                        published.record(candle)
                self.published = published
                complete = all(published.last_open_ms(*one) is not None for one in series)
                if complete or all(len(all_) <= tail for all_ in whole.values()):
                    break
        finally:
            await reader.close()

    async def publish_instruments(self, instruments: Sequence[Instrument]) -> None:
        """Publish instruments; raise BusError."""
        for instrument in instruments:
            await (await self._send(self._instruments, instrument.symbol, instrument.encode()))

    async def publish_new(self, candles: Sequence[Candle]) -> int:
        """Publish those of `candles` (in time order) that the topic does not have; return how many. Raises BusError.

        After an error the topic may or may not have the last of them: call `start` again.
        """
        fresh: list[Candle] = []
        for candle in candles:
            news, made = self.published.classify(candle)
            if news is BarStatus.LATE:
                _log.warning("bar_late", symbol=candle.symbol, interval=candle.interval, ts_open_ms=candle.ts_open_ms)
            if news not in {BarStatus.LATE, BarStatus.KNOWN}:
                FEED_CANDLES.labels(news.value).inc()
                fresh.append(made)
        for first in range(0, len(fresh), _TOGETHER):
            together = fresh[first : first + _TOGETHER]
            await asyncio.gather(*[await self._send(self._candles, one.symbol, one.encode()) for one in together])
        return len(fresh)

    async def close(self) -> None:
        """Close the producer."""
        if self._producer is not None:
            await self._producer.close()
            self._producer = None

    async def _send(self, topic: str, key: str, value: bytes) -> Awaitable[Position]:
        if self._producer is None:
            raise RuntimeError("start comes first")
        return await self._producer.send(topic, key=key.encode(), value=value)
