"""Bytewax: windows in a stateful step, threads that ask about a batch at once, snapshots each second to recover from."""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSinkMessage, KafkaSourceMessage
from bytewax.connectors.kafka import operators as kop
from bytewax.dataflow import Dataflow
from desk import BOOTSTRAP, CALLS, LIVE_FROM_MS, MARKET, SIGNALS, WINDOW_BARS, Asker, Window, signal

Ask = tuple[str, tuple[list[dict[str, str]], int, int]]
asker, threads = Asker(), ThreadPoolExecutor(CALLS)


def closed(message: KafkaSourceMessage) -> tuple[str, tuple[dict[str, Any], int]] | None:
    """Return a closed bar with its record's time, by symbol."""
    bar = json.loads(message.value)
    return (bar["symbol"], (bar, message.timestamp[1])) if bar["closed"] else None


def keep(rows: list[str] | None, value: tuple[dict[str, Any], int]) -> tuple[list[str], Iterable[tuple[list[dict[str, str]], int, int]]]:
    """Keep the window, and yield the prompt of a bar that is live."""
    bar, record_ms = value
    window = Window(WINDOW_BARS, rows=rows or [])
    window.take(bar)
    live = record_ms >= LIVE_FROM_MS
    return window.rows, [(window.messages(bar["symbol"]), record_ms, bar["ts_close_ms"])] if live else []


def decide(ask: Ask) -> KafkaSinkMessage:
    """Ask."""
    symbol, (messages, record_ms, close_ms) = ask
    return KafkaSinkMessage(symbol.encode(), signal(symbol, record_ms, close_ms, asker.ask_blocking(messages)))


flow = Dataflow("peer")
market = kop.input("market", flow, brokers=[BOOTSTRAP], topics=[MARKET], batch_size=CALLS)
bars = op.filter_map("closed", market.oks, closed)
asks = op.stateful_flat_map("keep", bars, keep)
made = op.flat_map_batch("decide", asks, lambda batch: threads.map(decide, batch))
kop.output("signals", made, brokers=[BOOTSTRAP], topic=SIGNALS)
