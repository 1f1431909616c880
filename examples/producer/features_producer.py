"""Publishes market features of your own: reads closed candles, and publishes each bar with numbers computed from it and those before.

It needs aiokafka, `kafka_security.py` beside it, and nothing of Aquiline; the messages are those of docs/messages.md. A strategy's
`[[facts]]` and `columns` show what it publishes, by name.

    python features_producer.py 127.0.0.1:9092 candles market-features
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from kafka_security import security

GROUP: Final = "features-producer"
"""Its commits say how far candles have been published."""
BARS: Final = 64
"""Bars that features are computed from at most. A fixed number, so that a restart computes the same."""
_ATR_BARS: Final = 14
_GAP_BARS: Final = 20

Bar = dict[str, Any]


def features(bars: Sequence[Bar]) -> dict[str, float]:
    """Return the features of the last of `bars`, oldest first. Leave one out while it is not defined; never return NaN.

    The worker measures entry, stop and target in `atr`: without it nothing can be bought or sold.
    """
    found: dict[str, float] = {}
    if len(bars) > _ATR_BARS:
        recent = list(bars)[-_ATR_BARS - 1 :]
        ranges = [max(bar["high"], before["close"]) - min(bar["low"], before["close"]) for before, bar in itertools.pairwise(recent)]
        found["atr"] = sum(ranges) / _ATR_BARS
    if len(bars) > _GAP_BARS:
        high = max(bar["high"] for bar in list(bars)[-_GAP_BARS - 1 : -1])
        found["from_high"] = bars[-1]["close"] / high - 1
    return {name: float(f"{value:.8g}") for name, value in found.items()}


class FeatureBook:
    """The last bars of every symbol and interval."""

    def __init__(self) -> None:
        """Start empty."""
        self._bars: dict[tuple[str, str], deque[Bar]] = {}

    def take(self, value: bytes) -> bytes | None:
        """Return the message to publish for a candle; None for one that forms, came before, or is older."""
        candle: Bar = json.loads(value)
        if not candle["closed"]:
            return None
        bars = self._bars.setdefault((candle["symbol"], candle["interval"]), deque(maxlen=BARS))
        if bars and candle["ts_close_ms"] <= bars[-1]["ts_close_ms"]:
            return None
        bars.append(candle)
        return json.dumps({**candle, "features": features(bars)}).encode()


async def run(bootstrap: str, candles: str, market_features: str) -> None:
    """Publish for ever. After a restart, candles whose features were published fill the book again, and the others follow.

    Both topics need the same number of partitions: the key, the symbol, then puts a symbol's records on the same one.
    """
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, **security())
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=GROUP,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        **security(),
    )
    await producer.start()
    try:
        partitions = [TopicPartition(candles, number) for number in await producer.partitions_for(candles)]
        consumer.assign(partitions)
        await consumer.start()
        published = {partition: await consumer.committed(partition) or 0 for partition in partitions}
        await consumer.seek_to_beginning()
        book = FeatureBook()
        while True:
            for partition, records in (await consumer.getmany(timeout_ms=500)).items():
                sent = []
                for record in records:
                    message = book.take(record.value)
                    if message is not None and record.offset >= published[partition]:
                        sent.append(await producer.send(market_features, message, key=record.key))
                # Commit what the broker has acknowledged: a crash before that publishes it again, which the worker ignores.
                await asyncio.gather(*sent)
                published[partition] = max(published[partition], records[-1].offset + 1)
                await consumer.commit({partition: published[partition]})
    finally:
        await consumer.stop()
        await producer.stop()


if __name__ == "__main__":
    asyncio.run(run(*sys.argv[1:4]))
