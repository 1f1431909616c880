"""What every worker is given: broker, simulator, the symbols' bars; and what a run reads back of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from benchmarks.feed import MARKET, MINUTE_MS, MODE, START_MS, Keyed, Walk, load, publish_instruments
from schemas import AuditRecord, Topic, decode_signal_message, topic_name
from schemas.signal import Signal
from services.core.bus import NewTopic, Producer
from services.core.bus.kafka import KafkaBus
from services.core.clock import SystemClock
from services.core.settings import BusSettings
from services.core.topic_admin import ensure_topics, topic_config
from services.fusion.state.epochs import EpochBoundaries

PARTITIONS: Final = 8
PEER_SIGNALS: Final = "peer-signals"
OUR_SIGNALS: Final = topic_name(Topic.STRATEGY_SIGNALS, MODE)
AUDIT: Final = topic_name(Topic.SIGNAL_AUDIT, MODE)


class Sent(NamedTuple):
    """A bar that was appended: its symbol, the end of its minute, and its append time."""

    symbol: str
    ts_close_ms: int
    record_ms: int

    @property
    def bar(self) -> tuple[str, int]:
        """Return the bar as signals name it."""
        return self.symbol, self.ts_close_ms


class Out(NamedTuple):
    """A signal: the bar that it is about, when that and itself were appended, and the tokens of its prompt."""

    symbol: str
    ts_close_ms: int
    record_ms: int
    signal_ms: int
    prompt_tokens: int
    cached_tokens: int

    @property
    def bar(self) -> tuple[str, int]:
        """Return the bar that the signal is about."""
        return self.symbol, self.ts_close_ms

    @property
    def age_ms(self) -> int:
        """Return the signal's append time less its bar's."""
        return self.signal_ms - self.record_ms


class Feed:
    """Histories that end where an epoch begins, and bars after them."""

    def __init__(self, producer: Producer, bootstrap: str, names: Sequence[str], history: int, epoch_slots: int) -> None:
        self._producer = producer
        self._bootstrap = bootstrap
        self._partitions: dict[int, int] = {}
        self._walks = [Walk(name, number) for number, name in enumerate(names)]
        base = START_MS // MINUTE_MS
        self._slots = [base - (base + history - 1 + EpochBoundaries(name, "1m", epoch_slots).shift) % epoch_slots for name in names]
        self._history = history

    async def history(self) -> None:
        """Append the histories."""
        for _ in range(self._history):
            await asyncio.gather(*(self.bar(number) for number in range(len(self._walks))))

    async def bar(self, number: int) -> Sent:
        """Append a symbol's next bar."""
        walk, open_ms = self._walks[number], self._slots[number] * MINUTE_MS
        self._slots[number] += 1
        acknowledgement = await self._producer.send(MARKET, key=walk.symbol.encode(), value=walk.bar(open_ms))
        position = await acknowledgement
        self._partitions[number] = position.partition
        return Sent(walk.symbol, open_ms + MINUTE_MS, position.timestamp_ms)

    def forming(self, count: int) -> list[Keyed]:
        """Return `count` forming bars, the symbols by turns, each with its symbol's partition as its number."""
        records = []
        for at in range(count):
            number = at % len(self._walks)
            walk = self._walks[number]
            value = walk.bar(self._slots[number] * MINUTE_MS, closed=False)
            records.append(Keyed(self._partitions[number], walk.symbol.encode(), value))
        return records

    async def append(self, records: Sequence[Keyed]) -> None:
        """Append `records`."""
        await load(self._bootstrap, records, PARTITIONS)

    async def closing(self) -> list[Sent]:
        """Append the next bar of one symbol on each partition."""
        first = {partition: number for number, partition in reversed(self._partitions.items())}
        return list(await asyncio.gather(*(self.bar(number) for number in first.values())))

    async def play(self, order: Sequence[int], per_s: float) -> list[Sent]:
        """Append the next bar of each symbol that `order` names, `per_s` of them a second, at even distances."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        sent = []
        for at, number in enumerate(order):
            await asyncio.sleep(max(0.0, started + at / per_s - loop.time()))
            sent.append(asyncio.create_task(self.bar(number)))
        return list(await asyncio.gather(*sent))


class Results:
    """Everything that is published, read as it comes."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        """Use `open`."""
        self._consumer = consumer
        self.out: list[Out] = []
        self.audits: list[AuditRecord] = []
        self.ended: set[tuple[str, int]] = set()
        """Bars with a signal or an audit record."""
        self.news = asyncio.Event()

    @classmethod
    async def open(cls, bootstrap: str) -> Results:
        consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest", enable_auto_commit=False)
        await consumer.start()
        consumer.assign([TopicPartition(topic, number) for topic in (PEER_SIGNALS, OUR_SIGNALS, AUDIT) for number in range(PARTITIONS)])
        return cls(consumer)

    async def follow(self) -> None:
        """Read until cancelled."""
        try:
            while True:
                for partition, records in (await self._consumer.getmany(timeout_ms=200)).items():
                    for record in records:
                        self._take(partition.topic, record.value, record.timestamp)
                    self.news.set()
        finally:
            await self._consumer.stop()

    def _take(self, topic: str, value: bytes, at_ms: int) -> None:
        if topic == PEER_SIGNALS:
            said = json.loads(value)
            self._add(Out(said["symbol"], said["ts_close_ms"], said["record_ms"], at_ms, said["prompt_tokens"], said["cached_tokens"]))
        elif topic == AUDIT:
            audit = AuditRecord.decode(value)
            self.audits.append(audit)
            self.ended.add((audit.symbol, audit.trigger.ts_event_ms))
        else:
            message = decode_signal_message(value)
            if isinstance(message, Signal):
                market = message.as_of.market
                self._add(
                    Out(message.symbol, market.ts_event_ms, market.ts_ms, at_ms, message.prompt_tokens or 0, message.cached_tokens or 0)
                )

    def _add(self, out: Out) -> None:
        self.out.append(out)
        self.ended.add(out.bar)

    async def until(self, holds: Any, timeout_s: float) -> bool:
        """Wait until `holds()`, no longer than `timeout_s`; return whether it came to that."""
        try:
            async with asyncio.timeout(timeout_s):
                while not holds():
                    self.news.clear()
                    await self.news.wait()
        except TimeoutError:
            return False
        return True


async def prepare(url: str, names: Sequence[str]) -> KafkaBus:
    """Make the topics and publish the instruments."""
    bus = KafkaBus(BusSettings(url=url), SystemClock())
    admin = await bus.admin()
    await ensure_topics(admin, MODE, PARTITIONS)
    await admin.create([NewTopic(PEER_SIGNALS, PARTITIONS, topic_config(Topic.STRATEGY_SIGNALS, 1))])
    await admin.close()
    await publish_instruments(bus, names)
    return bus


async def commit_ends(bootstrap: str, group: str) -> None:
    """Commit for `group` where the log of market features ends now."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False)
    await consumer.start()
    try:
        partitions = [TopicPartition(MARKET, number) for number in range(PARTITIONS)]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        await consumer.commit({partition: OffsetAndMetadata(end, "") for partition, end in ends.items()})
    finally:
        await consumer.stop()


def texts(folder: Path, content: dict[str, str]) -> Path:
    """Write what peers' prompts hold beside bars, and return the file."""
    file = folder / "texts.json"
    file.write_text(json.dumps(content))
    return file
