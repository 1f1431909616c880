"""aiokafka and an OpenAI client, as one would first write it: every bar is asked about, with the last bars before it."""

from __future__ import annotations

import asyncio
import json

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from desk import BOOTSTRAP, CALLS, GROUP, MARKET, SIGNALS, Asker, signal, windows
from history import fill


async def main() -> None:
    """Ask about each closed bar, as many at once as there are calls."""
    held = windows()
    await fill(held)
    asker, calls, asked = Asker(), asyncio.Semaphore(CALLS), set[asyncio.Task[None]]()
    consumer = AIOKafkaConsumer(MARKET, bootstrap_servers=BOOTSTRAP, group_id=GROUP, group_instance_id=GROUP, auto_commit_interval_ms=1_000)
    producer = AIOKafkaProducer(bootstrap_servers=BOOTSTRAP, enable_idempotence=True)
    await consumer.start()
    await producer.start()

    async def decide(symbol: str, messages: list[dict[str, str]], record_ms: int, close_ms: int) -> None:
        try:
            answer = await asker.ask(messages)
            await producer.send_and_wait(SIGNALS, signal(symbol, record_ms, close_ms, answer), key=symbol.encode())
        finally:
            calls.release()

    async for record in consumer:
        bar = json.loads(record.value)
        if not bar["closed"]:
            continue
        window = held[bar["symbol"]]
        window.take(bar)
        await calls.acquire()
        task = asyncio.create_task(decide(bar["symbol"], window.messages(bar["symbol"]), record.timestamp, bar["ts_close_ms"]))
        asked.add(task)
        task.add_done_callback(asked.discard)


asyncio.run(main())
