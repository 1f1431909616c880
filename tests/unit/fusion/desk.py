"""A worker on the in-process bus with a scripted engine, and what a test does to both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace

import numpy as np

from schemas import (
    AuditRecord,
    Cancel,
    Control,
    DeadLetter,
    HaltState,
    Instrument,
    InstrumentEvent,
    MarketFeatures,
    Message,
    Outcome,
    Signal,
    Topic,
    decode_signal_message,
    topic_name,
)
from services.core.bus import Record, TopicPartition
from services.core.bus.memory import MemoryBus
from services.core.bus.memory_group import Group, MemoryConsumer
from services.core.clock import Clock, VirtualClock
from services.core.health import Health
from services.core.settings import Settings
from services.core.topic_admin import ensure_topics
from services.fusion.rooms import WorkerDependencies
from services.fusion.worker import FusionWorker
from services.inference.engine import (
    Capabilities,
    Chunk,
    EngineError,
    EngineInfo,
    EngineLoad,
    EngineRequest,
    EngineSource,
    Scores,
    TokenIds,
    Usage,
)
from services.inference.sglang_client import CAPABILITIES
from tests.unit.fusion import build
from tests.unit.fusion.build import MODE, START, SYMBOL, bar, instrument

TOPICS = {topic: topic_name(topic, MODE) for topic in Topic}
NOW = START + 86_400_000
"""Where the clock starts: a day later than the first bar, as with recorded data."""

BUY = '{"action":"buy","conviction":62,"horizon":5,"entry":0,"stop":-12,"target":25,"rationale":"a rise"}'
SELL = '{"action":"sell","conviction":62,"horizon":5,"entry":0,"stop":12,"target":-25,"rationale":"a fall"}'
HOLD = '{"action":"hold","conviction":40,"horizon":5,"rationale":"no edge"}'
EXIT = HOLD.replace("hold", "exit")
ABSTAIN = '{"action":"abstain","reason":"thin data","rationale":"nothing to say"}'
NONSENSE = "I would rather not say."

Step = str | asyncio.Event | EngineError | Callable[[], None]
Script = Sequence[Step]
"""What an engine does in one call: say a text, wait for an event, fail, or have something happen."""


class ScriptedEngine:
    """Answers each call with the next script, and with the last one from then on."""

    def __init__(self, *scripts: Script, source: EngineSource = "llm", name: str = "scripted", model: str = "script") -> None:
        self.scripts = [list(script) for script in scripts] or [[BUY]]
        self.requests: list[EngineRequest] = []
        self.aborted: list[str] = []
        self.warmed: list[TokenIds] = []
        self.running = 0
        self.most_running = 0
        self.finish_reason = "stop"
        self.unread = 0
        """Tokens of each prompt that the engine says it did not read."""
        self.tells_cached = True
        """Whether it says how many prompt tokens it had cached."""
        self.closed = False
        self.logprobs: list[float] | None = None
        """Of the labels, in mode flash, and beside an answer that is asked for them."""
        self.scored: list[TokenIds] = []
        self.can_score = True
        self._info = EngineInfo(name, source, model)

    @property
    def name(self) -> str:
        return self._info.name

    @property
    def capabilities(self) -> Capabilities:
        return replace(CAPABILITIES, logprobs=self.can_score)

    async def info(self) -> EngineInfo:
        return self._info

    async def stream(self, request: EngineRequest) -> AsyncGenerator[Chunk, None]:
        script = self.scripts[min(len(self.requests), len(self.scripts) - 1)]
        self.requests.append(request)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        ended = False
        cached = 7 if self.tells_cached else None
        logprobs = None if self.logprobs is None or request.labels is None else np.array(self.logprobs)
        try:
            for step in script:
                match step:
                    case str():
                        yield Chunk(step, cached_tokens=cached, engine=self._info, logprobs=logprobs)
                    case asyncio.Event():
                        await step.wait()
                    case EngineError():
                        ended = True
                        raise step
                    case _:
                        step()
            ended = True
            yield Chunk("", usage=Usage(len(request.input_ids) - self.unread, 20, cached, 2.5, 0.0, self.finish_reason))
        finally:
            self.running -= 1
            if not ended:
                self.aborted.append(request.rid)

    async def warm(self, rid: str, affinity: str, input_ids: TokenIds) -> Usage:
        del rid, affinity
        self.warmed.append(input_ids)
        return Usage(len(input_ids), 1, 0)

    async def score(self, request: EngineRequest, labels: TokenIds) -> Scores:
        if self.logprobs is None:
            raise EngineError("engine_refused", f"{request.rid}: no log-probabilities of {labels.size} labels here")
        self.requests.append(request)
        self.scored.append(labels)
        return Scores(np.array(self.logprobs), Usage(len(request.input_ids), 1, 7))

    async def load(self, affinity: str | None = None) -> EngineLoad | None:
        del affinity
        return None

    async def watch(self) -> None:
        pass

    async def close(self) -> None:
        self.closed = True


@dataclass(frozen=True)
class Put:
    """A dead letter: its headers and the original key and bytes."""

    letter: DeadLetter
    key: bytes | None
    value: bytes | None


class Desk:
    """A bus with the topics of run mode demo, one instrument, and workers on it one after the other."""

    def __init__(self, engine: ScriptedEngine | None = None, fallback: ScriptedEngine | None = None, **fusion: object) -> None:
        self.clock = VirtualClock(NOW)
        self.worker_clock: Clock = self.clock
        """The worker's own, where it is to differ from the broker's."""
        self.bus = MemoryBus(self.clock)
        self.settings: Settings = build.settings(**fusion)
        self.engine = engine or ScriptedEngine()
        self.fallback = fallback
        self.worker: FusionWorker
        self._task: asyncio.Task[None]

    @classmethod
    async def open(cls, engine: ScriptedEngine | None = None, fallback: ScriptedEngine | None = None, **fusion: object) -> Desk:
        desk = cls(engine, fallback, **fusion)
        admin = await desk.bus.admin()
        await ensure_topics(admin, MODE, 2)
        await desk.send(Topic.INSTRUMENTS, instrument())
        return desk

    async def send(self, topic: Topic, *messages: Message) -> None:
        for one in messages:
            key = one.scope if isinstance(one, Control) else str(getattr(one, "symbol"))  # noqa: B009 - messages share no such field
            await self.send_raw(topic, key.encode(), one.encode())

    async def send_raw(self, topic: Topic, key: bytes | None, value: bytes | None) -> None:
        producer = await self.bus.producer(client_id="test")
        await (await producer.send(TOPICS[topic], key=key, value=value))

    async def bars(self, *bars: MarketFeatures) -> None:
        await self.send(Topic.MARKET_FEATURES, *bars)

    async def history(self, count: int = 5, symbol: str = SYMBOL) -> None:
        """Publish bars that trigger nothing: before the worker's group has its first commit, with `start_from` latest."""
        await self.bars(*(bar(slot, symbol=symbol) for slot in range(count)))

    async def instruments(self, *instruments: Instrument) -> None:
        await self.send(Topic.INSTRUMENTS, *instruments)

    async def split(self, event: InstrumentEvent) -> None:
        await self.send(Topic.INSTRUMENT_EVENTS, event)

    async def control(self, state: str, scope: str = "global") -> None:
        await self.send(
            Topic.CONTROL,
            Control(schema_version=1, run_mode=MODE, scope=scope, state=HaltState(state), reason="said so", actor="test", ts_ms=NOW),
        )

    def start(self) -> None:
        self.health = Health()
        self.health.require("opened")
        self._task = asyncio.create_task(self._work())

    async def _work(self) -> None:
        self.worker = await FusionWorker.open(
            WorkerDependencies(
                bus=self.bus,
                settings=self.settings,
                clock=self.worker_clock,
                health=self.health,
                engine=self.engine,
                fallback=self.fallback,
                tokenizer=build.tokenizer(),
                redis=None,
            )
        )
        self.health.set("opened")
        await self.worker.run()

    async def ready(self) -> None:
        await self.until(lambda: self.health.ready)

    async def stop(self) -> None:
        self.worker.stop()
        async with asyncio.timeout(30):
            await self._task

    async def ended(self) -> None:
        """Return when the worker has ended by itself; raise what it raised."""
        async with asyncio.timeout(30):
            await self._task

    async def crash(self) -> None:
        """Have the worker go as a killed process goes."""
        consumer = self.worker._rooms.consumer
        assert isinstance(consumer, MemoryConsumer)
        consumer.crash()
        gone = [self._task, *self.worker._rooms.dispatcher.running, *self.worker._rooms.ledger._writing]
        for task in gone:
            task.cancel()
        await asyncio.gather(*gone, return_exceptions=True)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[FusionWorker]:
        self.start()
        try:
            await self.ready()
            yield self.worker
        except BaseException:
            self._task.cancel()
            with suppress(BaseException):
                await self._task
            raise
        await self.stop()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                if self._task.done():
                    await self._task
                await asyncio.sleep(0.002)

    async def concluded(self, count: int) -> list[AuditRecord]:
        """Return the outcomes once there are `count` of them."""
        async with asyncio.timeout(20):
            while len(found := await self.audit()) < count:
                if self._task.done():
                    await self._task
                await asyncio.sleep(0.002)
        return found

    async def published(self, count: int) -> list[Signal]:
        """Return the signals once there are `count` of them."""
        async with asyncio.timeout(20):
            while len(found := await self.signals()) < count:
                if self._task.done():
                    await self._task
                await asyncio.sleep(0.002)
        return found

    async def read(self, topic: Topic) -> list[Record]:
        admin, reader = await self.bus.admin(), await self.bus.reader(client_id="test")
        info = (await admin.describe([TOPICS[topic]]))[TOPICS[topic]]
        partitions = [TopicPartition(info.name, number) for number in range(info.partitions)]
        ends = await reader.end_offsets(partitions)
        await reader.read(await reader.beginning_offsets(partitions))
        records: list[Record] = []
        while any(reader.position(partition) < end for partition, end in ends.items()):
            records += await reader.poll(timeout_ms=200)
        return records

    async def audit(self) -> list[AuditRecord]:
        return [AuditRecord.decode(one.value or b"") for one in await self.read(Topic.SIGNAL_AUDIT)]

    async def outcomes(self) -> list[tuple[Outcome, str | None]]:
        return [(one.outcome, one.reason) for one in await self.audit()]

    async def said(self) -> list[Signal | Cancel]:
        return [decode_signal_message(one.value or b"") for one in await self.read(Topic.STRATEGY_SIGNALS)]

    async def signals(self) -> list[Signal]:
        return [one for one in await self.said() if isinstance(one, Signal)]

    async def cancels(self) -> list[Cancel]:
        return [one for one in await self.said() if isinstance(one, Cancel)]

    async def dead_letters(self) -> list[Put]:
        return [Put(DeadLetter.from_headers(one.headers), one.key, one.value) for one in await self.read(Topic.DEAD_LETTERS)]

    @property
    def group(self) -> Group:
        """Return the worker's group, as the bus has it."""
        return self.bus._groups[self.settings.fusion_group]

    async def committed(self) -> dict[str, int]:
        """Return by topic the sum of the group's committed offsets."""
        group = self.group
        sums: dict[str, int] = {}
        for partition, held in group.committed.items():
            sums[partition.topic] = sums.get(partition.topic, 0) + held.offset
        return sums
