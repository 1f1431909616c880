"""Faust: an agent that keeps windows in a table, and one with concurrency that asks."""

from __future__ import annotations

import json

import faust
from desk import BOOTSTRAP, CALLS, GROUP, LIVE_FROM_MS, MARKET, SIGNALS, STATE, WINDOW_BARS, Asker, Window, signal

app = faust.App(
    GROUP,
    broker=f"kafka://{BOOTSTRAP}",
    store="memory://",
    datadir=STATE,
    web_enabled=False,
    topic_replication_factor=1,
    topic_partitions=8,
    broker_commit_interval=1.0,
    broker_session_timeout=6.0,
    broker_heartbeat_interval=1.0,
)
market = app.topic(MARKET, value_serializer="raw", value_type=bytes)
signals = app.topic(SIGNALS, value_serializer="raw", value_type=bytes)
rows = app.Table("rows", default=list)
asks = app.channel(maxsize=CALLS)
asker = Asker()


@app.agent(market)
async def fold(stream: faust.StreamT[bytes]) -> None:
    """Keep the windows, and hand closed bars on once they are live."""
    async for event in stream.events():
        bar = json.loads(event.value)
        if not bar["closed"]:
            continue
        window = Window(WINDOW_BARS, rows=rows[bar["symbol"]])
        window.take(bar)
        rows[bar["symbol"]] = window.rows
        record_ms = round(event.message.timestamp * 1_000)
        if record_ms >= LIVE_FROM_MS:
            await asks.put((bar["symbol"], window.messages(bar["symbol"]), record_ms, bar["ts_close_ms"]))


@app.agent(asks, concurrency=CALLS)
async def decide(stream: faust.StreamT[tuple[str, list[dict[str, str]], int, int]]) -> None:
    """Ask."""
    async for symbol, messages, record_ms, close_ms in stream:
        answer = await asker.ask(messages)
        await signals.send(key=symbol, value=signal(symbol, record_ms, close_ms, answer))


if __name__ == "__main__":
    app.main()
