"""A live feed from an exchange: publishes its instruments, then polls and publishes candles until stopped.

Failures are retried with exponential back-off. After each, the feed continues from the end of the topic, so that an outage of exchange
or broker causes neither gaps nor duplicates.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from schemas import interval_ms
from services.core.bus import Bus, BusError
from services.core.clock import Clock
from services.core.health import Health
from services.core.metrics import FEED_FAILURES
from services.feeds.candle_publisher import CandlePublisher
from services.feeds.ccxt_exchange import Exchange, UnreachableError

_FIRST_PAUSE_MS: Final = 1_000
_LONGEST_PAUSE_MS: Final = 60_000
_MEASURE_EVERY_MS: Final = 600_000
_REOPEN_AFTER_MS: Final = 86_400_000
"""Ticks, lots and fees change, so instruments are published again every day."""
_AFTER_CLOSE_MS: Final = 50
"""Exchanges often close a bar some milliseconds after its end."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class FeedRequest:
    """What to publish, and how often to poll."""

    symbols: Mapping[str, str]
    """Aquiline's symbol of each of the exchange's markets."""
    interval: str
    history_bars: int
    """How many past bars to publish when the topic has none of the series."""
    poll_ms: int


class Backoff:
    """Exponential back-off with jitter: doubles up to one minute."""

    def __init__(self, first_ms: int = _FIRST_PAUSE_MS) -> None:
        """Start with `first_ms`."""
        self._first_ms = first_ms
        self._failures = 0
        self._random = random.Random()  # noqa: S311 - no secret

    def next_ms(self, at_least_ms: int = 0) -> int:
        """Return the next pause, at least `at_least_ms`."""
        longest = min(_LONGEST_PAUSE_MS, self._first_ms << min(self._failures, 16))
        self._failures += 1
        return max(at_least_ms, round(longest * self._random.uniform(0.5, 1)))

    def reset(self) -> None:
        """Start again from the first pause, after a success."""
        self._failures = 0


class ExchangeFeed:
    """Publishes the candles of one exchange; a `services.core.lifecycle.Service`."""

    def __init__(self, feed: FeedRequest, exchange: Exchange, bus: Bus, clock: Clock, *, health: Health, pause: Backoff) -> None:
        """Wire up the feed; `run` closes the exchange."""
        self._feed = feed
        self._exchange = exchange
        self._publisher = CandlePublisher(bus, exchange.run_mode, "aquiline-feed-ccxt")
        self._clock = clock
        self._health = health
        self._pause = pause
        self._stopping = asyncio.Event()
        self._opened_ms = self._measured_ms = -_REOPEN_AFTER_MS
        health.require("exchange")

    async def run(self) -> None:
        """Publish until `stop`; raise SettingsError for an unknown market, BusError when the topic does not exist."""
        task = asyncio.ensure_future(self._run())
        stopped = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                await task
        finally:
            for one in (task, stopped):
                one.cancel()
            await asyncio.gather(task, stopped, return_exceptions=True)
            await self._publisher.close()
            await self._exchange.close()

    def stop(self) -> None:
        """Make `run` return. The next run publishes what was not acknowledged."""
        self._stopping.set()

    async def _run(self) -> None:
        # A missing topic ends the feed at once; a broker that becomes unreachable later is retried.
        await self._publisher.start(self._series())
        while True:
            try:
                if self._clock.now_ms() - self._opened_ms > _REOPEN_AFTER_MS:
                    await self._open()
                if self._clock.now_ms() - self._measured_ms > _MEASURE_EVERY_MS:
                    await self._exchange.measure_clock()
                    self._measured_ms = self._clock.now_ms()
                await self._poll()
            except UnreachableError as error:
                FEED_FAILURES.labels(error.reason).inc()
                await self._wait(error.reason, str(error), error.wait_ms)
            except BusError as error:
                FEED_FAILURES.labels("bus").inc()
                await self._wait("bus", str(error), 0)
                await self._read_topic_again()

    def _series(self) -> set[tuple[str, str]]:
        return {(symbol, self._feed.interval) for symbol in self._feed.symbols.values()}

    async def _open(self) -> None:
        feed = self._feed
        await self._exchange.open(list(feed.symbols), feed.interval)
        await self._publisher.publish_instruments([self._exchange.instrument(name, symbol) for name, symbol in feed.symbols.items()])
        self._opened_ms = self._measured_ms = self._clock.now_ms()
        _log.info("exchange_open", symbols=len(feed.symbols), interval=feed.interval)

    async def _poll(self) -> None:
        """Publish the new bars of every symbol, then sleep until the next poll or the next close, whichever is earlier."""
        feed, length = self._feed, interval_ms(self._feed.interval)
        for name, symbol in feed.symbols.items():
            more = True
            while more:
                last_ms = self._publisher.published.last_open_ms(symbol, feed.interval)
                begin_ms = self._exchange.now_ms() - feed.history_bars * length
                # Include the last closed bar: the exchange may have corrected it.
                since_ms = begin_ms if last_ms is None else last_ms
                candles, more = await self._exchange.candles(name, symbol, feed.interval, since_ms)
                published = await self._publisher.publish_new(candles)
                more = more and published > 0
        self._health.set("exchange")
        self._health.end_excuse("exchange")
        self._health.progress()
        self._pause.reset()
        now_ms = self._exchange.now_ms()
        next_close_ms = (now_ms // length + 1) * length + _AFTER_CLOSE_MS
        ahead_ms = now_ms - self._clock.now_ms()
        await self._clock.sleep_until(min(now_ms + feed.poll_ms, next_close_ms) - ahead_ms)

    async def _wait(self, reason: str, problem: str, at_least_ms: int) -> None:
        pause_ms = self._pause.next_ms(at_least_ms)
        _log.warning("feed_interrupted", reason=reason, problem=problem, pause_ms=pause_ms)
        self._health.clear("exchange", reason)
        self._health.excuse("exchange")
        self._measured_ms = -_REOPEN_AFTER_MS
        await self._clock.sleep_until(self._clock.now_ms() + pause_ms)

    async def _read_topic_again(self) -> None:
        """Read the topic again: a record whose acknowledgement was lost may be there."""
        while True:
            try:
                await self._publisher.start(self._series())
            except BusError as error:
                await self._wait("bus", str(error), 0)
            else:
                return
