"""What a worker does between its bus and its engine, with the worker's own parts, driven step by step on a virtual clock.

Books, intake, lanes, prompts, sending ahead and recovery are the product's; only the shell of tasks around them is left out, so that a
week takes seconds and comes out the same each time.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from uuid import uuid4

from schemas import CancelReason, Restatement
from services.core.bus import Bus, Committed, Reader, Record, TopicPartition
from services.core.clock import VirtualClock
from services.core.decode import Refused
from services.core.instruments import Instruments
from services.core.settings import EngineSettings, Settings
from services.core.tokenizer import Tokenizer
from services.fusion.decide.guard import Guard
from services.fusion.decide.lanes import Lanes
from services.fusion.deliver.commit_metadata import encode_metadata
from services.fusion.deliver.recovery import Recovery
from services.fusion.prompt.builder import PromptBuilder
from services.fusion.prompt.prewarm import Prewarmer
from services.fusion.prompt.store import PrefixStore
from services.fusion.prompt.traffic import EngineTraffic
from services.fusion.service import load_tokenizer
from services.fusion.state.books import Books
from services.fusion.state.intake import Intake
from services.fusion.state.triggers import LaneKey, Trigger, TriggerPolicy
from services.inference.engine import Chunk, EngineError, EngineInfo, EngineLoad, EngineRequest, Sampling, Scores, TokenIds, Usage
from services.inference.sglang_client import CAPABILITIES
from services.inference.simulator.radix import RadixTree
from tests.unit.fusion.log import no_tables, taken_over

PARTITIONS: Final = 2


class TreeEngine:
    """An engine that answers at once and holds a real radix tree of everything that it was sent; nothing is evicted but by `flush`."""

    name = "tree"
    capabilities = CAPABILITIES

    def __init__(self) -> None:
        self.tree = RadixTree()

    def flush(self) -> None:
        """Forget everything, as an engine does that other work has filled overnight."""
        self.tree = RadixTree()

    async def info(self) -> EngineInfo:
        return EngineInfo("tree", "simulator", "tree")

    async def stream(self, request: EngineRequest) -> AsyncGenerator[Chunk]:
        yield Chunk("", None, self._prefill(request.input_ids))

    async def warm(self, rid: str, affinity: str, input_ids: TokenIds) -> Usage:
        del rid, affinity
        return self._prefill(input_ids)

    async def score(self, request: EngineRequest, labels: TokenIds) -> Scores:
        raise EngineError("engine_refused", f"{request.rid}: no log-probabilities of {labels.size} labels here")

    async def load(self, affinity: str | None = None) -> EngineLoad | None:
        del affinity
        return EngineLoad(0, 0, 0)

    async def watch(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def _prefill(self, ids: TokenIds) -> Usage:
        cached = self.tree.match(ids)[0]
        self.tree.insert(ids)
        # An engine always computes the last token anew: there would be nothing to decode from.
        return Usage(ids.size, 0, min(cached, ids.size - 1))


class AsOf(NamedTuple):
    """What a prompt rests on."""

    lane: LaneKey
    market: int
    vision: int | None


@dataclass
class Asked:
    """One prompt that was sent, and how much of it the engine held already."""

    as_of: AsOf
    at_ms: int
    hash: str
    tokens: int
    cached: int


@dataclass
class Told:
    """What a desk did, over all its lives."""

    asked: list[Asked] = field(default_factory=list)
    blocked: int = 0
    ended: int = 0
    refused: list[str] = field(default_factory=list)

    def hits(self, asked: Sequence[Asked] | None = None) -> float:
        """Return the share of prompt tokens that the engine held."""
        chosen = self.asked if asked is None else asked
        return sum(one.cached for one in chosen) / sum(one.tokens for one in chosen)


class Desk:
    """One life of a worker: it takes all partitions over, reads, asks, and may end at any moment."""

    takes_triggers = True

    def __init__(self, bus: Bus, settings: Settings, clock: VirtualClock, engine: TreeEngine, told: Told) -> None:
        fusion = settings.fusion
        self._bus, self._settings, self._clock, self._engine, self.told = bus, settings, clock, engine, told
        self._instruments = Instruments(bus, clock, settings.run_mode, "week")
        self._instruments.on_restatement = self._on_restatement
        self.books = Books(fusion, self._instruments)
        self._policy = TriggerPolicy(fusion)
        self.intake = Intake(settings, clock, self.books, self._policy)
        self._lanes = Lanes({"fast": fusion.permits, "deep": fusion.deep_permits}, fusion.max_staleness_ms)
        self._guard = Guard(fusion)
        store = PrefixStore(None, settings.redis, clock, "week")
        self.prompts = PromptBuilder(fusion, _tokenizer(), settings.engine.chat_template, store, settings.redis.local_bytes)
        self.prewarmer = Prewarmer(settings, clock, engine, self.prompts, self.books, traffic=EngineTraffic())
        self._readers: list[Reader] = []
        self._next: dict[TopicPartition, int] = {}
        self._sending: asyncio.Task[None] | None = None

    async def start(self, committed: Mapping[TopicPartition, Committed | None]) -> None:
        """Take every partition over from what an earlier life committed."""
        await self._instruments.start()
        recovery = Recovery(self._bus, self._settings, self._clock, self.intake, self.books, tables=no_tables(self._bus, self._clock))
        for partition in range(PARTITIONS):
            takeover = await taken_over(recovery, committed, partition)
            self._next.update(takeover.start)
        for topic in (self.intake.market_topic, self.intake.vision_topic):
            reader = await self._bus.reader(client_id=f"week-{topic}")
            await reader.read({tp: offset for tp, offset in self._next.items() if tp.topic == topic})
            self._readers.append(reader)
        self._sending = asyncio.create_task(self.prewarmer.run())
        await asyncio.sleep(0)
        self.prewarmer.warm_current(sorted(book.instrument.symbol for book in self.books))
        await self.prewarmer.idle()

    async def kill(self) -> dict[TopicPartition, Committed | None]:
        """End at once, and return what was committed."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.gather(self._sending, return_exceptions=True)
        for reader in self._readers:
            await reader.close()
        await self._instruments.close()
        return {tp: Committed(offset, encode_metadata((0, 0), 1)) for tp, offset in self._next.items()}

    async def read(self, *, vision_first: bool, most: int) -> None:
        """Take in what has been appended, at most `most` records of a topic at a time, and ask what is ready after each batch."""
        readers = list(reversed(self._readers)) if vision_first else self._readers
        empty = False
        while not empty:
            empty = True
            for reader in readers:
                records = await reader.poll(timeout_ms=0, max_records=most)
                for record in records:
                    empty = False
                    self._next[TopicPartition(record.topic, record.partition)] = record.offset + 1
                    taken = self.intake.take(record, self)
                    if isinstance(taken, Refused):
                        self.told.refused.append(taken.reason.value)
                await self.dispatch()

    async def look_up(self) -> None:
        """Take in what is new of instruments and splits."""
        await self._instruments.catch_up()

    def next_wake_ms(self) -> int | None:
        """Return when a wait for vision features ends."""
        return self._lanes.next_wake_ms()

    async def dispatch(self) -> None:
        """Ask about every trigger whose turn has come."""
        started, ended = self._lanes.start_ready(self._clock.now_ms())
        self.told.ended += len(ended)
        while started:
            for one in started:
                await self._ask(one.trigger)
                self._lanes.finish(one.trigger)
            await self.prewarmer.idle()
            started, ended = self._lanes.start_ready(self._clock.now_ms())
            self.told.ended += len(ended)

    async def _ask(self, trigger: Trigger) -> None:
        lane = trigger.lane
        book = self.books.get(lane.symbol)
        assert book is not None
        assert book.market_ref is not None
        if self._guard.on_book(book, lane.interval, 0) is not None:
            self.told.blocked += 1
            return
        as_of = AsOf(lane, book.market_ref.offset, book.vision_ref.offset if book.vision_ref else None)
        plan = self.prompts.plan(book, lane.interval, lane.mode)
        prompt = await self.prompts.build(plan)
        request = EngineRequest(uuid4().hex, lane.symbol, lane.mode, prompt.ids, Sampling(1), 0, lambda: ("", ""), plan.facts)
        async for chunk in self._engine.stream(request):
            assert chunk.usage is not None
            cached = chunk.usage.cached_tokens or 0
            self.told.asked.append(Asked(as_of, self._clock.now_ms(), prompt.hash, prompt.ids.size, cached))
        self.prewarmer.after_decision(lane.symbol, lane.interval)

    # --- What intake and instruments tell ---------------------------------------------------------------------------------------

    def trigger(self, trigger: Trigger, wait_until_ms: int, record: Record) -> None:
        del record
        if self._lanes.offer(trigger, self._clock.now_ms(), wait_until_ms) is not None:
            self.told.ended += 1

    def vision_arrived(self, symbol: str, interval: str, window_end_ms: int) -> bool:
        return self._lanes.complete_wait(symbol, interval, window_end_ms, self._clock.now_ms())

    def bars_changed(self, symbol: str, reason: CancelReason) -> None:
        del reason
        self.prewarmer.warm_current([symbol])

    def _on_restatement(self, event: Restatement) -> None:
        self.intake.add_restatement(event, self)


@functools.cache
def _tokenizer() -> Tokenizer:
    return load_tokenizer(EngineSettings())
