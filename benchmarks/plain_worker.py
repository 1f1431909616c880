"""A worker as one would first write it, for comparison alone: every closed bar is asked about, in the order in which they came.

It has the real worker's book, prompts, engine client and number of calls at once, and none of its lanes, deadlines and guards.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Final
from uuid import uuid4

import orjson

from schemas import Topic, topic_name
from services.core.bus import Bus, Producer, Record, TopicPartition
from services.core.clock import Clock
from services.core.instruments import Instruments
from services.core.settings import Settings
from services.core.tokenizer import Tokenizer
from services.fusion.decide.answer import AnswerReader, sampling
from services.fusion.prompt.builder import PromptBuilder, fingerprint
from services.fusion.prompt.store import PrefixStore
from services.fusion.state.books import Books
from services.fusion.state.intake import Intake, NullSink
from services.fusion.state.triggers import Trigger, TriggerPolicy
from services.inference.engine import Engine, EngineRequest

_PATIENCE_MS: Final = 60_000


class PlainWorker(NullSink):
    """Reads one partition; `ready` is set once the history has been folded."""

    takes_triggers = True

    def __init__(self, bus: Bus, settings: Settings, clock: Clock, engine: Engine, tokenizer: Tokenizer) -> None:
        self._bus, self._settings, self._clock, self._engine = bus, settings, clock, engine
        self._instruments = Instruments(bus, clock, settings.run_mode, "plain-instruments")
        self.books = Books(settings.fusion, self._instruments)
        self._intake = Intake(settings, clock, self.books, TriggerPolicy(settings.fusion))
        store = PrefixStore(None, settings.redis, clock, fingerprint(tokenizer, settings.engine.chat_template, settings.fusion.strategy))
        self.prompts = PromptBuilder(settings.fusion, tokenizer, settings.engine.chat_template, store, settings.redis.local_bytes)
        self._signals = topic_name(Topic.STRATEGY_SIGNALS, settings.run_mode)
        self._queue: asyncio.Queue[Record] = asyncio.Queue()
        self._made: Trigger | None = None
        self.ready = asyncio.Event()
        self.published: list[tuple[str, int, int]] = []
        """Symbol, timestamp of the bar's record and of the signal's, in milliseconds."""

    @property
    def waiting(self) -> int:
        """Return how many records wait for their turn."""
        return self._queue.qsize()

    def trigger(self, trigger: Trigger, wait_until_ms: int, record: Record) -> None:
        """Take note of what the record that is being folded asks for."""
        del wait_until_ms, record
        self._made = trigger

    async def run(self) -> None:
        """Work until cancelled."""
        await self._instruments.start()
        market = TopicPartition(self._intake.market_topic, 0)
        reader = await self._bus.reader(client_id="plain")
        producer = await self._bus.producer(client_id="plain")
        end = (await reader.end_offsets([market]))[market]
        await reader.read({market: 0})
        while reader.position(market) < end:
            for record in await reader.poll(timeout_ms=100):
                self._intake.take(record, NullSink())
        self.ready.set()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._settings.fusion.permits):
                tasks.create_task(self._decide_in_turn(producer))
            while True:
                for record in await reader.poll(timeout_ms=100):
                    self._queue.put_nowait(record)

    async def _decide_in_turn(self, producer: Producer) -> None:
        while True:
            record = await self._queue.get()
            made = self._fold(record)
            if made is None:
                continue
            symbol = made.lane.symbol
            action = await self._ask(symbol, made.lane.interval)
            value = orjson.dumps({"symbol": symbol, "action": action})
            acknowledgement = await producer.send(self._signals, key=symbol.encode(), value=value)
            self.published.append((symbol, record.timestamp_ms, (await acknowledgement).timestamp_ms))

    def _fold(self, record: Record) -> Trigger | None:
        self._made = None
        self._intake.take(record, self)
        return self._made

    async def _ask(self, symbol: str, interval: str) -> str:
        book = self.books.get(symbol)
        assert book is not None
        plan = self.prompts.plan(book, interval, "fast")
        prompt = await self.prompts.build(plan)
        request = EngineRequest(
            rid=uuid4().hex,
            affinity=symbol,
            mode="fast",
            input_ids=prompt.ids,
            sampling=sampling(self._settings.fusion, "fast", uuid4()),
            deadline_ms=self._clock.now_ms() + _PATIENCE_MS,
            text=lambda: ("", ""),
            view=plan.facts,
        )
        reader = AnswerReader(thinking=False)
        async with aclosing(self._engine.stream(request)) as chunks:
            async for chunk in chunks:
                reader.feed(chunk.text)
        assert reader.decision is not None
        return type(reader.decision).__name__
