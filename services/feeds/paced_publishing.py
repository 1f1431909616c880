"""Publishes candles in order of event time: as fast as the broker takes them, at a rate, or in real time multiplied."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from schemas import Candle, interval_ms
from services.core.bus import Position, Producer
from services.core.clock import Clock

_UNACKNOWLEDGED: Final = 1_000


@dataclass(frozen=True, slots=True)
class AsFastAsPossible:
    """Send each candle as soon as the one before is handed over."""


@dataclass(frozen=True, slots=True)
class BarsPerSecond:
    """Publish `rate` closing times a second: with one interval, `rate` bars a symbol."""

    rate: float


@dataclass(frozen=True, slots=True)
class RealTime:
    """Keep the distances between the ends of the bars, divided by `speed`."""

    speed: float


Pace = AsFastAsPossible | BarsPerSecond | RealTime


def in_event_time(candles: Iterable[Candle]) -> list[Candle]:
    """Return the candles by their ends; of those that end together the shorter intervals come first, then by symbol."""
    return sorted(candles, key=lambda candle: (candle.ts_close_ms, interval_ms(candle.interval), candle.symbol, candle.revision))


def schedule(candles: Iterable[Candle], pace: Pace) -> Iterator[tuple[int, Candle]]:
    """Yield each candle, given in order of event time, with the ms after the start at which it is due."""
    step = -1
    first_ms: int | None = None
    last_ms: int | None = None
    for candle in candles:
        first_ms = candle.ts_close_ms if first_ms is None else first_ms
        if candle.ts_close_ms != last_ms:
            last_ms = candle.ts_close_ms
            step += 1
        match pace:
            case AsFastAsPossible():
                yield 0, candle
            case BarsPerSecond(rate):
                yield round(step * 1_000 / rate), candle
            case RealTime(speed):
                yield round((candle.ts_close_ms - first_ms) / speed), candle


async def publish_at_pace(
    candles: Iterable[Candle],
    *,
    topic: str,
    producer: Producer,
    clock: Clock,
    pace: Pace,
    on_sent: Callable[[Candle], None],
) -> int:
    """Publish the candles, given in order of event time, keyed by symbol; return how many the broker acknowledged.

    `on_sent` is told of each candle handed over. Raises BusError when the broker does not take one.
    """
    start_ms = clock.now_ms()
    waiting: list[asyncio.Future[Position]] = []
    count = 0
    for due_ms, candle in schedule(candles, pace):
        await clock.sleep_until(start_ms + due_ms)
        sent = await producer.send(topic, key=candle.symbol.encode(), value=candle.encode())
        waiting.append(asyncio.ensure_future(sent))
        on_sent(candle)
        if len(waiting) >= _UNACKNOWLEDGED:
            count += len(await asyncio.gather(*waiting))
            waiting.clear()
    return count + len(await asyncio.gather(*waiting))
