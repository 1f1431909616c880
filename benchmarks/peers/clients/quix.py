"""Quix Streams: windows in its state store; a call blocks its process, so several processes share the partitions."""

from __future__ import annotations

from typing import Any

from desk import BOOTSTRAP, GROUP, LIVE_FROM_MS, MARKET, SIGNALS, STATE, WINDOW_BARS, Asker, Window, signal
from quixstreams import Application, State

app = Application(
    broker_address=BOOTSTRAP,
    consumer_group=GROUP,
    consumer_extra_config={"group.instance.id": STATE.name},
    auto_offset_reset="earliest",
    state_dir=STATE,
    commit_interval=1.0,
    loglevel="WARNING",
)
market = app.topic(MARKET, value_deserializer="json", key_deserializer="str")
signals = app.topic(SIGNALS, value_serializer="bytes", key_serializer="str")
asker = Asker()


def decide(bar: dict[str, Any], key: str, timestamp: int, _headers: Any, state: State) -> bytes | None:
    """Keep the window, and ask about a bar that is live."""
    window = Window(WINDOW_BARS, rows=state.get("rows", []))
    window.take(bar)
    state.set("rows", window.rows)
    if timestamp < LIVE_FROM_MS:
        return None
    return signal(key, timestamp, bar["ts_close_ms"], asker.ask_blocking(window.messages(key)))


bars = app.dataframe(market)
bars = bars[bars["closed"]].apply(decide, stateful=True, metadata=True)
bars.filter(lambda value: value is not None).to_topic(signals)

if __name__ == "__main__":
    app.run()
