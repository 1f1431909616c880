"""aiokafka and an OpenAI client: the latest bar of each symbol, and a window that grows, so that its prompts share a prefix."""

from __future__ import annotations

import asyncio
import json

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from desk import BOOTSTRAP, CALLS, GROUP, GROWTH_BARS, MARKET, SIGNALS, Asker, signal, windows
from history import fill


async def main() -> None:
    """Ask about the latest bar of each symbol, the symbols in the order in which they came."""
    held = windows(GROWTH_BARS)
    await fill(held)
    asker, latest, news = Asker(), dict[str, tuple[int, int]](), asyncio.Condition()
    consumer = AIOKafkaConsumer(MARKET, bootstrap_servers=BOOTSTRAP, group_id=GROUP, group_instance_id=GROUP, auto_commit_interval_ms=1_000)
    producer = AIOKafkaProducer(bootstrap_servers=BOOTSTRAP, enable_idempotence=True)
    await consumer.start()
    await producer.start()

    async def read() -> None:
        while True:
            for records in (await consumer.getmany(timeout_ms=100)).values():
                for record in records:
                    bar = json.loads(record.value)
                    if bar["closed"]:
                        held[bar["symbol"]].take(bar)
                        latest[bar["symbol"]] = record.timestamp, bar["ts_close_ms"]
            async with news:
                news.notify_all()

    async def decide() -> None:
        while True:
            async with news:
                await news.wait_for(lambda: latest)
            if not latest:
                continue
            symbol = next(iter(latest))
            record_ms, close_ms = latest.pop(symbol)
            answer = await asker.ask(held[symbol].messages(symbol))
            await producer.send_and_wait(SIGNALS, signal(symbol, record_ms, close_ms, answer), key=symbol.encode())

    await asyncio.gather(read(), *(decide() for _ in range(CALLS)))


asyncio.run(main())
