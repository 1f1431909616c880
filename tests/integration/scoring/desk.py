"""The scorer as processes on a real Kafka, a market to feed them, and a view of what they publish and keep."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
from aiokafka import AIOKafkaProducer

from schemas import Cancel, Instrument, InstrumentEvent, MarketFeatures, Message, RunMode, Signal, SignalOutcome, Topic, topic_name
from services.core.bus import Position, Producer, Reader, Record, TopicPartition
from services.core.bus.kafka import KafkaBus
from services.core.bus.kafka_cluster import read_cluster_state
from services.core.clock import SystemClock
from services.core.settings import BusSettings
from services.core.topic_admin import ensure_topics
from tests.integration.fusion.waiting import until
from tests.integration.fusion.worker import Worker

MODE = RunMode.DEMO
PARTITIONS = 4
# Topics that are only compacted cannot be emptied between tests.
_EMPTIED: Mapping[str, str] = {"cleanup.policy": "compact,delete", "retention.ms": "-1"}
_COMPACTED = (Topic.INSTRUMENTS, Topic.CONTROL, Topic.SCORING_JUDGES, Topic.POSITIONS)


class Desk:
    """Everything that one test needs; `close` ends it all."""

    def __init__(self, folder: Path, bus_url: str, unique: str) -> None:
        self.folder = folder
        self.values: dict[str, Any] = {
            "run_mode": MODE.value,
            "bus": {"url": bus_url, "session_timeout_ms": 3_000, "rebalance_timeout_ms": 11_000, "request_timeout_ms": 3_000},
            "scoring": {"group": unique, "cost_bps": 2.0, "slippage_bps": 1.0, "commit_interval_ms": 200},
            "log": {"format": "json"},
        }
        self._settings = BusSettings(url=bus_url, request_timeout_ms=3_000)
        self._group = f"{MODE.value}.{unique}"
        self.bus = KafkaBus(self._settings, SystemClock())
        self.workers: list[Worker] = []
        self._producer: Producer
        self._reader: Reader

    async def open(self) -> None:
        """Empty the topics."""
        admin = await self.bus.admin()
        try:
            new = await ensure_topics(admin, MODE, PARTITIONS, overrides=dict.fromkeys(_COMPACTED, _EMPTIED))
            await admin.truncate([name for topic in Topic if (name := topic_name(topic, MODE)) not in new])
        finally:
            await admin.close()
        self._producer = await self.bus.producer(client_id="desk")
        self._reader = await self.bus.reader(client_id="desk")

    async def close(self) -> None:
        for worker in self.workers:
            worker.kill()
        await self._producer.close()
        await self._reader.close()
        await self.bus.close()

    def worker(self, name: str = "scorer", **tables: Mapping[str, Any]) -> Worker:
        """Return a scorer that is not started yet; `tables` add to the settings."""
        values = {key: {**value, **tables.get(key, {})} if isinstance(value, dict) else value for key, value in self.values.items()}
        worker = Worker(self.folder, name, values, "scoring")
        self.workers.append(worker)
        return worker

    async def publish(self, messages: Sequence[Message]) -> list[Position]:
        """Publish messages on their topics under their keys, in this order."""
        topics = {
            Signal: Topic.STRATEGY_SIGNALS,
            Cancel: Topic.STRATEGY_SIGNALS,
            MarketFeatures: Topic.MARKET_FEATURES,
            Instrument: Topic.INSTRUMENTS,
            InstrumentEvent: Topic.INSTRUMENT_EVENTS,
        }
        handed = []
        for message in messages:
            symbol: str = message.symbol  # type: ignore[attr-defined]
            handed.append(await self.publish_raw(topics[type(message)], symbol.encode(), message.encode()))
        return handed

    async def publish_in_transaction(self, messages: Sequence[MarketFeatures | Signal], *, commit: bool = True) -> None:
        """Publish messages as a producer with transactions does; without `commit`, abort once the broker has them."""
        producer = AIOKafkaProducer(bootstrap_servers=self.bus.address.removeprefix("kafka://"), transactional_id="feed")
        await producer.start()
        try:
            await producer.begin_transaction()
            for message in messages:
                topic = Topic.STRATEGY_SIGNALS if isinstance(message, Signal) else Topic.MARKET_FEATURES
                await producer.send(topic_name(topic, MODE), key=message.symbol.encode(), value=message.encode())
            await producer.flush()
            await (producer.commit_transaction() if commit else producer.abort_transaction())
        finally:
            await producer.stop()

    async def publish_raw(self, topic: Topic, key: bytes, value: bytes) -> Position:
        return await (await self._producer.send(topic_name(topic, MODE), key=key, value=value))

    async def records(self, topic: Topic) -> list[Record]:
        """Return all that a topic holds."""
        name = topic_name(topic, MODE)
        tps = [TopicPartition(name, number) for number in range(1 if topic is Topic.DEAD_LETTERS else PARTITIONS)]
        begins, ends = await self._reader.beginning_offsets(tps), await self._reader.end_offsets(tps)
        await self._reader.read({tp: begins[tp] for tp in tps})
        found: list[Record] = []
        while any(self._reader.position(tp) < ends[tp] for tp in tps):
            found += await self._reader.poll(timeout_ms=200)
        return found

    async def outcomes(self) -> dict[str, bytes]:
        """Return the body of each outcome by signal; raise AssertionError when two of one signal differ."""
        found: dict[str, bytes] = {}
        for record in await self.records(Topic.SIGNAL_OUTCOMES):
            assert record.value is not None
            outcome = SignalOutcome.decode(record.value)
            assert found.setdefault(str(outcome.signal_id), record.value) == record.value, outcome
            assert record.key == outcome.symbol.encode()
        return found

    async def open_signals(self) -> set[str]:
        """Return the signals that have no outcome, as the judges' changelog has them."""
        last = {record.key: record.value for record in await self.records(Topic.SCORING_JUDGES)}
        return {paper["signal_id"] for value in last.values() if value for paper in orjson.loads(value)["open"]}

    async def count(self, topic: Topic) -> int:
        """Return how many records a topic holds."""
        tps = [TopicPartition(topic_name(topic, MODE), number) for number in range(PARTITIONS)]
        begins, ends = await self._reader.beginning_offsets(tps), await self._reader.end_offsets(tps)
        return sum(ends.values()) - sum(begins.values())

    async def all_committed(self) -> bool:
        """Return whether the group has committed all that both inputs hold."""
        names = [topic_name(topic, MODE) for topic in (Topic.STRATEGY_SIGNALS, Topic.MARKET_FEATURES)]
        tps = [TopicPartition(name, number) for name in names for number in range(PARTITIONS)]
        begins, ends = await self._reader.beginning_offsets(tps), await self._reader.end_offsets(tps)
        committed = (await read_cluster_state(self._settings, self._group)).committed
        return all(committed.get(tp, begins[tp]) == ends[tp] for tp in tps)

    async def judged(self, count: int) -> None:
        """Return once so many signals have an outcome."""

        async def holds() -> bool:
            return len(await self.outcomes()) >= count

        await self.eventually(holds, f"{count} outcomes")

    async def eventually(self, holds: Callable[[], Awaitable[bool]], what: str) -> None:
        """Return once `holds` does; raise AssertionError with the ends of the workers' logs."""
        await until(holds, what, told=lambda: "\n".join(worker.tail() for worker in self.workers))
