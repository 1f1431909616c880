"""Made-up market features for benchmarks: random walks as JSON records of about 368 bytes, and the instruments behind them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import orjson
from aiokafka import AIOKafkaProducer

from schemas import Instrument, RunMode, Topic, topic_name
from services.core.bus import Bus

MODE: Final = RunMode.SHADOW
MARKET: Final = topic_name(Topic.MARKET_FEATURES, MODE)
START_MS: Final = 1_735_689_600_000
MINUTE_MS: Final = 60_000
UPDATES: Final = 11
"""Forming updates of a one-minute bar before it closes: one every 5 s."""

_PLACEHOLDER: Final = "SYMBOL.VENUE"
_BATCH_BYTES: Final = 500_000


class Keyed(NamedTuple):
    """A record to be sent, with the number of its symbol."""

    number: int
    key: bytes
    value: bytes


def symbols(count: int) -> list[str]:
    """Return `count` symbols."""
    return [f"COIN{number:04d}-USD.CBSE" for number in range(count)]


def instrument(symbol: str) -> Instrument:
    """Return the instrument of `symbol`, which trades at all hours."""
    return Instrument(
        schema_version=1, run_mode=MODE, symbol=symbol, currency="USD", price_increment="0.01", calendar="24x7", price_adjustment="none"
    )


async def publish_instruments(bus: Bus, names: Sequence[str]) -> None:
    """Write the instruments of `names`."""
    producer = await bus.producer(client_id="benchmark-instruments")
    topic = topic_name(Topic.INSTRUMENTS, MODE)
    await asyncio.gather(*(producer.send(topic, key=name.encode(), value=instrument(name).encode()) for name in names))
    await producer.close()


class Walk:
    """One symbol's prices: the same seed gives the same bars."""

    def __init__(self, symbol: str, seed: int) -> None:
        """Start near 100."""
        self.symbol = symbol
        self.price = 100.0
        self._random = np.random.default_rng(seed)

    def bar(self, open_ms: int, *, interval: str = "1m", length_ms: int = MINUTE_MS, closed: bool = True) -> bytes:
        """Return the next record: the price takes a step, the bar is drawn around it, the indicators are made up."""
        step, up, down, share, volume, *more = self._random.random(9).tolist()
        first, self.price = self.price, max(1.0, self.price * (1 + (step - 0.5) * 0.002))
        last = round(self.price, 2)
        first = round(first, 2)
        content: dict[str, Any] = {
            "schema_version": 1,
            "run_mode": MODE.value,
            "symbol": self.symbol,
            "interval": interval,
            "ts_open_ms": open_ms,
            "ts_close_ms": open_ms + length_ms,
            "open": first,
            "high": round(max(first, last) + up * 0.1, 2),
            "low": round(min(first, last) - down * 0.1, 2),
            "close": last,
            "volume": round(1 + volume * 900, 3),
            "closed": closed,
            "revision": 0,
            "features": {
                "atr": round(0.1 + share * 0.1, 6),
                "rsi": round(20 + more[0] * 60, 4),
                "ema_fast": round(self.price * (1 + (more[1] - 0.5) * 0.001), 4),
                "ema_slow": round(self.price * (1 + (more[2] - 0.5) * 0.002), 4),
                "ret_1": round((step - 0.5) * 0.002, 8),
                "bb_pos": round(more[3], 6),
                "volume_z": round((volume - 0.5) * 4, 6),
            },
        }
        return orjson.dumps(content)


def minutes(names: Sequence[str], count: int, *, updates: int = UPDATES, start_ms: int = START_MS) -> Iterator[Keyed]:
    """Yield `count` minutes of all `names`, each bar forming `updates` times before it closes, symbols taking turns."""
    walks = [(number, name.encode(), Walk(name, number)) for number, name in enumerate(names)]
    for minute in range(count):
        open_ms = start_ms + minute * MINUTE_MS
        for update in range(updates + 1):
            for number, key, walk in walks:
                yield Keyed(number, key, walk.bar(open_ms, closed=update == updates))


def closed_minutes(names: Sequence[str], count: int, *, start_ms: int = START_MS) -> Iterator[Keyed]:
    """Yield `count` closed minutes of all `names`, which share 16 walks: a record costs a fraction of one from `minutes`."""
    walks = [Walk(_PLACEHOLDER, seed) for seed in range(16)]
    keys = [name.encode() for name in names]
    for minute in range(count):
        bars = [walk.bar(start_ms + minute * MINUTE_MS).split(_PLACEHOLDER.encode()) for walk in walks]
        for number, key in enumerate(keys):
            yield Keyed(number, key, key.join(bars[number % len(bars)]))


async def load(bootstrap: str, records: Iterable[Keyed], partitions: int, topic: str = MARKET) -> tuple[int, float]:
    """Append `records`, a symbol's to one partition and in order; return their count and the mean size of their values."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", max_batch_size=2 * _BATCH_BYTES, max_request_size=4_000_000)
    await producer.start()
    batches = {partition: producer.create_batch() for partition in range(partitions)}
    count = total = 0
    try:
        for record in records:
            partition = record.number % partitions
            batch = batches[partition]
            batch.append(key=record.key, value=record.value, timestamp=None)
            count += 1
            total += len(record.value)
            if batch.size() > _BATCH_BYTES:
                await (await producer.send_batch(batch, topic, partition=partition))
                batches[partition] = producer.create_batch()
        for partition, batch in batches.items():
            if batch.record_count():
                await (await producer.send_batch(batch, topic, partition=partition))
    finally:
        await producer.stop()
    return count, total / max(1, count)
