"""A site: topics on a real Kafka emptied for one test, a real Redis, an engine, workers as processes, and a view of every topic."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from schemas import SPECS, Control, HaltState, MarketFeatures, Message, RunMode, Topic, VisionFeatures, topic_name
from services.core.bus import Bus, Headers, Position, Producer, TopicPartition
from services.core.bus.kafka import KafkaBus
from services.core.clock import SystemClock
from services.core.instruments import Instruments
from services.core.settings import BusSettings, Settings, load
from services.core.topic_admin import ensure_topics
from tests.integration.fusion.feed import SYMBOLS, Numbers, bar, instrument, window
from tests.integration.fusion.logs import Logs
from tests.integration.fusion.waiting import until
from tests.integration.fusion.worker import Worker, write_settings

PARTITIONS = 4
HISTORY_BARS = 12
# A compacted topic cannot be emptied between tests.
_KEPT: Mapping[Topic, Mapping[str, str]] = {
    topic: {"cleanup.policy": "delete", "retention.ms": "-1"} for topic, spec in SPECS.items() if spec.compacted
}


async def empty_topics(bus: Bus, run_mode: RunMode, *, but: RunMode | None = None) -> None:
    """Create or empty the topics of `run_mode`, those aside that run mode `but` uses too."""
    admin = await bus.admin()
    try:
        new = await ensure_topics(admin, run_mode, PARTITIONS, overrides=_KEPT)
        kept = {*new, *(topic_name(topic, but) for topic in Topic if but is not None)}
        if old := [name for topic in Topic if (name := topic_name(topic, run_mode)) not in kept]:
            await admin.truncate(old)
    finally:
        await admin.close()


class Site:
    """Everything that one test needs; `close` ends it all."""

    def __init__(self, folder: Path, bus_url: str, redis_url: str, engine_url: str, run_mode: RunMode = RunMode.DEMO) -> None:
        """Use these servers; topics are those of `run_mode`."""
        self.folder = folder
        self.run_mode = run_mode
        self.unique = uuid.uuid4().hex[:10]
        self.values: dict[str, Any] = {
            "run_mode": run_mode.value,
            "bus": {"url": bus_url, "session_timeout_ms": 3_000, "rebalance_timeout_ms": 10_000, "request_timeout_ms": 3_000},
            "redis": {"url": redis_url, "namespace": self.unique, "breaker_open_ms": 300},
            "engine": {"urls": [engine_url], "breaker_open_ms": 200, "connect_timeout_ms": 500},
            "fusion": {
                "group": f"fusion-{self.unique}",
                "log_id": self.unique,
                "intervals": ["1m"],
                "window_bars": 64,
                "epoch_slots": 32,
                "min_bars": 5,
                "vision_wait_ms": 0,
                "max_staleness_ms": 20_000,
                "entry_validity_ms": {"1m": 15_000},
                "commit_interval_ms": 100,
                "drain_ms": 4_000,
                "permits": 4,
                "flip_flop_limit": 0,
                "rate_limit_per_min": 1_000_000,
                "prewarm": False,
            },
            "log": {"format": "json"},
        }
        self.numbers = Numbers()
        self.bus = KafkaBus(BusSettings(url=bus_url, request_timeout_ms=3_000), SystemClock())
        self.logs = Logs(self.bus, run_mode, PARTITIONS)
        self.workers: list[Worker] = []
        self.first: dict[TopicPartition, int] = {}
        """Where the inputs ended when the history stood: what comes from here on triggers."""
        self._producer: Producer

    async def open(self, *, symbols: Sequence[str] = SYMBOLS, history: int = HISTORY_BARS, producer: Producer | None = None) -> None:
        """Empty the topics, publish instruments and a history that nobody is asked about, with `producer` or the bus's own."""
        await empty_topics(self.bus, self.run_mode)
        self._producer = producer or await self.bus.producer(client_id="feed")
        await self.logs.open()
        await self.publish(Topic.INSTRUMENTS, [instrument(symbol, self.run_mode) for symbol in symbols])
        await self.feed(symbols, history)
        if history:
            await self.publish(Topic.VISION_FEATURES, [window(symbol, history - 1, self.run_mode) for symbol in symbols])
        reader = await self.bus.reader(client_id="ends")
        try:
            self.first = await reader.end_offsets(
                [
                    TopicPartition(topic_name(topic, self.run_mode), number)
                    for topic in (Topic.MARKET_FEATURES, Topic.VISION_FEATURES)
                    for number in range(PARTITIONS)
                ]
            )
        finally:
            await reader.close()

    async def close(self) -> None:
        """End the workers and close everything."""
        for worker in self.workers:
            worker.kill()
        await self.logs.close()
        await self._producer.close()

    # --- Publishing ----------------------------------------------------------------------------------------------------------

    async def feed(self, symbols: Sequence[str] = SYMBOLS, bars: int = 1) -> list[MarketFeatures]:
        """Publish the next `bars` closed bars of each symbol, and return them."""
        made = [bar(symbol, self.numbers.take(symbol), self.run_mode) for _ in range(bars) for symbol in symbols]
        await self.publish(Topic.MARKET_FEATURES, made)
        return made

    async def publish(self, topic: Topic, messages: Sequence[Message]) -> list[Position]:
        """Publish messages under their keys, and return where they are."""
        acknowledgements = [
            await self._producer.send(topic_name(topic, self.run_mode), key=_key(message), value=message.encode()) for message in messages
        ]
        return [await acknowledgement for acknowledgement in acknowledgements]

    async def publish_raw(self, topic: Topic, key: bytes | None, value: bytes | None, headers: Headers = ()) -> Position:
        """Publish bytes as they are."""
        return await (await self._producer.send(topic_name(topic, self.run_mode), key=key, value=value, headers=headers))

    async def publish_many(
        self, records: Sequence[tuple[Topic, bytes | None, bytes | None]]
    ) -> dict[tuple[str, int, int], tuple[bytes | None, bytes | None]]:
        """Publish records of topic, key and value without waiting in between; return key and value by where each is."""
        handed = [
            (await self._producer.send(topic_name(topic, self.run_mode), key=key, value=value), (key, value))
            for topic, key, value in records
        ]
        return {(at.topic, at.partition, at.offset): what for acknowledgement, what in handed for at in [await acknowledgement]}

    async def say(self, state: HaltState, scope: str = "global") -> int:
        """Halt or resume as an operator does, and return the offset of the word."""
        word = Control(
            schema_version=1, run_mode=self.run_mode, scope=scope, state=state, reason="a test", actor="test", ts_ms=SystemClock().now_ms()
        )
        return (await self.publish(Topic.CONTROL, [word]))[0].offset

    # --- Workers ------------------------------------------------------------------------------------------------------------

    def worker(self, name: str = "worker", **tables: Mapping[str, Any]) -> Worker:
        """Return a worker that is not started yet; `tables` add to the settings."""
        worker = Worker(self.folder, name, self.merged(**tables))
        self.workers.append(worker)
        return worker

    def merged(self, **tables: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings with `tables` added."""
        values = {name: dict(table) if isinstance(table, Mapping) else table for name, table in self.values.items()}
        for name, table in tables.items():
            values[name] = {**values.get(name, {}), **table}
        return values

    def config(self) -> Path:
        """Return a settings file for commands."""
        return write_settings(self.folder / "command.toml", self.values)

    def settings(self) -> Settings:
        """Return the settings of the workers."""
        return load(self.config())

    async def instruments(self) -> Instruments:
        """Return the instruments as a worker reads them."""
        found = Instruments(self.bus, SystemClock(), self.run_mode, "instruments")
        await found.start()
        await found.close()
        return found

    async def eventually(self, holds: Callable[[], Awaitable[bool]], what: str) -> None:
        """Return once `holds` does; raise AssertionError with the ends of the workers' logs."""
        await until(holds, what, told=self.tails)

    def tails(self) -> str:
        """Return the ends of all workers' logs."""
        return "\n".join(worker.tail() for worker in self.workers)


def _key(message: Message) -> bytes:
    if isinstance(message, Control):
        return message.scope.encode()
    symbol: str = message.symbol if isinstance(message, MarketFeatures | VisionFeatures) else message.model_dump()["symbol"]
    return symbol.encode()
