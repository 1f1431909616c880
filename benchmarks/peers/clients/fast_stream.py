"""FastStream: a subscriber with workers, windows in memory that are filled from the log before it starts."""

from __future__ import annotations

import asyncio
from typing import Any

from desk import BOOTSTRAP, CALLS, GROUP, MARKET, SIGNALS, Asker, signal, windows
from faststream import FastStream
from faststream.kafka import KafkaBroker
from faststream.kafka.annotations import KafkaMessage
from history import fill

broker = KafkaBroker(BOOTSTRAP)
app = FastStream(broker)
held = windows()
asker = Asker()


@app.on_startup
async def read_history() -> None:
    """Fill the windows up to the group's commits."""
    await fill(held)


@broker.subscriber(MARKET, group_id=GROUP, group_instance_id=GROUP, max_workers=CALLS, auto_commit_interval_ms=1_000)
async def decide(bar: dict[str, Any], message: KafkaMessage) -> None:
    """Ask about a closed bar."""
    if not bar["closed"]:
        return
    window, symbol = held[bar["symbol"]], bar["symbol"]
    window.take(bar)
    answer = await asker.ask(window.messages(symbol))
    value = signal(symbol, message.raw_message.timestamp, bar["ts_close_ms"], answer)
    await broker.publish(value, SIGNALS, key=symbol.encode())


asyncio.run(app.run())
