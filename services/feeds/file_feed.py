"""A live feed from growing files: reads a file again when it has changed and publishes its new bars.

A last line without a line break is not read yet. A bar is published as forming until its end, and again when its values change.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import structlog

from schemas import Candle
from services.core.bus import Bus
from services.core.calendar import CalendarError
from services.core.clock import Clock
from services.core.errors import ServiceError
from services.core.health import Health
from services.core.metrics import FEED_FAILURES
from services.core.settings import SettingsError
from services.feeds.candle_publisher import CandlePublisher
from services.feeds.file_instruments import instruments_for
from services.feeds.files import FileError, ReadOptions, merged, read_all
from services.feeds.paced_publishing import in_event_time

_LOOK_EVERY_MS: Final = 500

_log = structlog.get_logger()


class FileFeed:
    """Publishes the candles of growing files; a `services.core.lifecycle.Service`."""

    def __init__(
        self,
        paths: Sequence[Path],
        options: ReadOptions,
        bus: Bus,
        clock: Clock,
        health: Health,
        *,
        follow: bool,
        price_increment: str | None,
        currency: str,
    ) -> None:
        """Wire up the feed. With `price_increment`, publish the symbols as instruments first."""
        self._paths = paths
        self._follow = follow
        self._options = replace(options, growing=follow)
        self._publisher = CandlePublisher(bus, options.run_mode, "aquiline-feed-files")
        self._clock = clock
        self._health = health
        self._price_increment = price_increment
        self._currency = currency
        self._known: set[tuple[str, str]] = set()
        self._stopping = False
        self._seen: list[tuple[int, int] | None] = []
        self._forming = False

    async def run(self) -> None:
        """Publish until `stop`, or once; raise BusError when the topic does not exist or the broker does not take a record.

        Raises ServiceError when a file cannot be read and is not followed; a followed file may still be repaired.
        """
        try:
            while not self._stopping:
                await self._publish_changes()
                if not self._follow:
                    return
                self._health.progress()
                await self._clock.sleep_until(self._clock.now_ms() + _LOOK_EVERY_MS)
        finally:
            await self._publisher.close()

    def stop(self) -> None:
        """Make `run` return after the current read."""
        self._stopping = True

    async def _publish_changes(self) -> None:
        stats = [_stat(path) for path in self._paths]
        if stats == self._seen and not self._forming:
            return
        present = [path for path, stat in zip(self._paths, stats, strict=True) if stat is not None or not self._follow]
        try:
            options = replace(self._options, now_ms=self._clock.now_ms())
            candles = merged(await asyncio.to_thread(read_all, present, options))
        except (FileError, CalendarError) as error:
            if not self._follow:
                raise ServiceError(str(error)) from error
            if stats != self._seen:
                FEED_FAILURES.labels("file").inc()
                _log.error("file_unreadable", problem=str(error))
            self._seen = stats
            return
        self._seen = stats
        self._forming = any(not one.closed for one in candles)
        await self._publish(candles)

    async def _publish(self, candles: list[Candle]) -> None:
        series = {(one.symbol, one.interval) for one in candles}
        if not series <= self._known:
            await self._publisher.start(series | self._known)
            if self._price_increment is not None:
                await self._describe([one for one in candles if (one.symbol, one.interval) not in self._known])
            self._known |= series
        await self._publisher.publish_new(in_event_time(candles))

    async def _describe(self, candles: list[Candle]) -> None:
        try:
            made = instruments_for(
                candles,
                run_mode=self._options.run_mode,
                currency=self._currency,
                price_increment=self._price_increment,
                calendar=self._options.calendar,
                price_adjustment="none",
            )
        except ValueError as error:
            raise SettingsError(str(error)) from error
        await self._publisher.publish_instruments(made)


def _stat(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns
