"""A live feed from an exchange: opens it, publishes its instruments, and polls candles until it is told to stop.

What goes wrong on the way is waited out with growing pauses. After each, the feed goes on where the topic ends, so that an outage of
either side leaves no hole that the exchange could still fill, and no bar twice.
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
from services.feeds.exchange import Exchange, UnreachableError
from services.feeds.publisher import CandlePublisher

_FIRST_PAUSE_MS: Final = 1_000
_LONGEST_PAUSE_MS: Final = 60_000
_MEASURE_EVERY_MS: Final = 600_000
_REOPEN_AFTER_MS: Final = 86_400_000
"""Ticks, lots and fees change now and then."""
_AFTER_CLOSE_MS: Final = 50
"""Asked right at its end, an exchange often has not closed the bar yet."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class LiveFeed:
    """What to feed."""

    symbols: Mapping[str, str]
    """Aquiline's symbols by the exchange's names."""
    interval: str
    history_bars: int
    """How many bars before now a series begins with that the topic holds nothing of."""
    poll_ms: int


class Pause:
    """How long to wait after failures in a row: twice as long each time, up to a minute, and a random part less, so that feeds scatter."""

    def __init__(self, first_ms: int = _FIRST_PAUSE_MS) -> None:
        """Begin with `first_ms`."""
        self._first_ms = first_ms
        self._failures = 0
        self._random = random.Random()  # noqa: S311 - no secret

    def next_ms(self, at_least_ms: int = 0) -> int:
        """Return the next pause, `at_least_ms` where the other side asks for that."""
        longest = min(_LONGEST_PAUSE_MS, self._first_ms << min(self._failures, 16))
        self._failures += 1
        return max(at_least_ms, round(longest * self._random.uniform(0.5, 1)))

    def reset(self) -> None:
        """Begin anew: it worked."""
        self._failures = 0


class ExchangeFeed:
    """Publishes the candles of one exchange; a `services.core.lifecycle.Service`."""

    def __init__(self, feed: LiveFeed, exchange: Exchange, bus: Bus, clock: Clock, *, health: Health, pause: Pause) -> None:
        """Use what is given; `run` closes the exchange."""
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
        """Feed until `stop`; raise SettingsError for a market that the exchange does not have, BusError without a topic."""
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
        """Have `run` return; what was not acknowledged is published by the next feed."""
        self._stopping.set()

    async def _run(self) -> None:
        # A topic that does not exist is said at once; a broker that goes away later is waited for.
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
                await self._learn_again()

    def _series(self) -> set[tuple[str, str]]:
        return {(symbol, self._feed.interval) for symbol in self._feed.symbols.values()}

    async def _open(self) -> None:
        feed = self._feed
        await self._exchange.open(list(feed.symbols), feed.interval)
        await self._publisher.describe([self._exchange.instrument(name, symbol) for name, symbol in feed.symbols.items()])
        self._opened_ms = self._measured_ms = self._clock.now_ms()
        _log.info("exchange_open", symbols=len(feed.symbols), interval=feed.interval)

    async def _poll(self) -> None:
        """Publish what is new of every symbol, then wait for the next moment at which something can be."""
        feed, length = self._feed, interval_ms(self._feed.interval)
        for name, symbol in feed.symbols.items():
            more = True
            while more:
                last_ms = self._publisher.ledger.last_open_ms(symbol, feed.interval)
                begin_ms = self._exchange.now_ms() - feed.history_bars * length
                # From the last closed bar on, and not after it: its values may have changed since.
                since_ms = begin_ms if last_ms is None else last_ms
                candles, more = await self._exchange.candles(name, symbol, feed.interval, since_ms)
                published = await self._publisher.offer(candles)
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

    async def _learn_again(self) -> None:
        """Read what the topic holds after all: a record whose acknowledgement was lost may be there."""
        while True:
            try:
                await self._publisher.start(self._series())
            except BusError as error:
                await self._wait("bus", str(error), 0)
            else:
                return
