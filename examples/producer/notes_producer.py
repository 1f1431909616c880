"""Publishes notes: a JSON object a line on standard input becomes a record.

It needs aiokafka, `kafka_security.py` beside it, and nothing of Aquiline.

    echo '{"symbol": "*", "source": "calendar", "importance": 5, "text": "FOMC at 14:00"}' | python notes_producer.py 127.0.0.1:9092 notes

docs/messages.md lists the further fields of a note, such as `blackout`; a line may have each of them.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Final

from aiokafka import AIOKafkaProducer
from kafka_security import security

MAX_CHARACTERS: Final = 500
"""Longer texts are cut: workers refuse them."""


def record(line: str, now_ms: int, run_mode: str = "live") -> tuple[bytes, bytes]:
    """Return key and value of a line's record; raise KeyError or ValueError when it is none. `ts_ms` is now where it is not given."""
    note = {"schema_version": 1, "run_mode": run_mode, "source": "desk", "ts_ms": now_ms, **json.loads(line)}
    note["text"] = note["text"][:MAX_CHARACTERS]
    return note["symbol"].encode(), json.dumps(note).encode()


async def run(bootstrap: str, topic: str, run_mode: str = "live") -> None:
    """Publish until standard input ends."""
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, **security()) as producer:
        while line := await asyncio.to_thread(sys.stdin.readline):
            try:
                key, value = record(line, time.time_ns() // 1_000_000, run_mode)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                sys.stderr.write(f"no note: {line.strip()!r} ({error!r})\n")
                continue
            await producer.send_and_wait(topic, value, key=key)


if __name__ == "__main__":
    asyncio.run(run(*sys.argv[1:4]))
