"""Publishes funding rates: a JSON object a line on standard input becomes a record.

It needs aiokafka, `kafka_security.py` beside it, and nothing of Aquiline.

echo '{"symbol": "BTC-USDT.BINA", "rate": 0.0001, "next_ms": 1795190400000}' | python funding_producer.py 127.0.0.1:9092 funding
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from aiokafka import AIOKafkaProducer
from kafka_security import security


def record(line: str, now_ms: int, run_mode: str = "live") -> tuple[bytes, bytes]:
    """Return key and value of a line's record; raise KeyError or ValueError when it is none."""
    given = json.loads(line)
    rate: dict[str, Any] = {"symbol": str(given["symbol"]), "rate": float(given["rate"]), "next_ms": int(given["next_ms"])}
    return rate["symbol"].encode(), json.dumps({"schema_version": 1, "run_mode": run_mode, "ts_ms": now_ms, **rate}).encode()


async def run(bootstrap: str, topic: str, run_mode: str = "live") -> None:
    """Publish until standard input ends."""
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, **security()) as producer:
        while line := await asyncio.to_thread(sys.stdin.readline):
            try:
                key, value = record(line, time.time_ns() // 1_000_000, run_mode)
            except (KeyError, TypeError, ValueError) as error:
                sys.stderr.write(f"no funding rate: {line.strip()!r} ({error!r})\n")
                continue
            await producer.send_and_wait(topic, value, key=key)


if __name__ == "__main__":
    asyncio.run(run(*sys.argv[1:4]))
