"""aiokafka alone, as the measure of records a second: each record is read and parsed, a closed bar is published, and nothing is asked."""

from __future__ import annotations

import asyncio
import json

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from desk import BOOTSTRAP, GROUP, MARKET, SIGNALS, signal

NO_ANSWER = {"action": "none", "prompt_tokens": 0, "cached_tokens": 0}


async def main() -> None:
    """Read until killed."""
    consumer = AIOKafkaConsumer(MARKET, bootstrap_servers=BOOTSTRAP, group_id=GROUP, group_instance_id=GROUP)
    producer = AIOKafkaProducer(bootstrap_servers=BOOTSTRAP)
    await consumer.start()
    await producer.start()
    while True:
        for records in (await consumer.getmany(timeout_ms=100)).values():
            for record in records:
                bar = json.loads(record.value)
                if bar["closed"]:
                    value = signal(bar["symbol"], record.timestamp, bar["ts_close_ms"], NO_ANSWER)
                    await producer.send(SIGNALS, value, key=record.key)


asyncio.run(main())
