"""Random logs of both input topics, and workers' books that are fed from them, for the properties of prompts."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import redis.asyncio as redis_async
from numpy.typing import NDArray

from schemas import Instrument, InstrumentEvent, MarketFeatures, Message, VisionFeatures, interval_ms
from services.core.bus import Bus, Committed, Record, TopicPartition
from services.core.bus.memory import MemoryBus
from services.core.clock import VirtualClock
from services.core.global_tables import GlobalTables
from services.core.instruments import Instruments
from services.core.settings import Settings
from services.core.tokenizer import Tokenizer
from services.fusion.deliver.recovery import Recovery, Takeover
from services.fusion.prompt.builder import Prompt, PromptBuilder, fingerprint
from services.fusion.prompt.store import PrefixStore
from services.fusion.state.book import Book
from services.fusion.state.books import Books
from services.fusion.state.intake import Intake, NullSink
from services.fusion.state.triggers import TriggerPolicy
from tests.unit.fusion.build import MODE, START, VISION, bar_at, instrument, record, seen, tokenizer

SYMBOLS = ("BTC-USD.CBSE", "ETH-USD.CBSE")
INTERVALS = ("1m", "5m")
INSTRUMENTS = tuple(map(instrument, SYMBOLS))


class RememberingTokenizer(Tokenizer):
    """The shipped tokenizer, which says again what it said of a text before: properties ask for the same lines thousands of times."""

    said: dict[str, NDArray[np.int32]]

    def __init__(self) -> None:
        shared = tokenizer()
        self._hf = shared._hf
        self._trained = shared._trained
        self._where = shared._where
        self.fingerprint = shared.fingerprint
        self.vocab_size = shared.vocab_size
        self.said = {}

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        absent = [text for text in dict.fromkeys(texts) if text not in self.said]
        self.said.update(zip(absent, super().encode_batch(absent), strict=True))
        return [self.said[text] for text in texts]


TOKENIZER = RememberingTokenizer()


@dataclass
class Logs:
    """Both topics' records, in order, and how far the market's minutes went after each market record."""

    market: list[Record] = field(default_factory=list)
    vision: list[Record] = field(default_factory=list)

    def add(self, message: Message) -> None:
        if isinstance(message, VisionFeatures):
            self.vision.append(record(len(self.vision), message, topic=VISION))
        else:
            self.market.append(record(len(self.market), message))


def random_logs(rng: random.Random, slots: int) -> Logs:
    """Return logs of `slots` minutes of two symbols with all that feeds do: gaps, forming bars, doubles, corrections, late bars."""
    logs = Logs()
    price = dict.fromkeys(SYMBOLS, 100.0)
    sent: dict[tuple[str, str], list[MarketFeatures]] = {(symbol, i): [] for symbol in SYMBOLS for i in INTERVALS}
    for slot in range(slots):
        for symbol in SYMBOLS:
            price[symbol] *= 1 + rng.uniform(-0.01, 0.01)
            for interval in INTERVALS:
                _slot(rng, logs, sent[symbol, interval], slot, price=price[symbol], symbol=symbol, interval=interval)
    return logs


def _slot(rng: random.Random, logs: Logs, sent: list[MarketFeatures], slot: int, *, price: float, symbol: str, interval: str) -> None:
    length = interval_ms(interval)
    minute_ms = START + slot * interval_ms("1m")
    open_ms = minute_ms // length * length
    ends = minute_ms + interval_ms("1m") == open_ms + length
    value = round(price, 2)
    if not ends or rng.random() < 0.2:
        logs.add(bar_at(open_ms, value, symbol=symbol, interval=interval, closed=False))
    if not ends or rng.random() < 0.06:
        return
    closed = bar_at(open_ms, value, symbol=symbol, interval=interval)
    logs.add(closed)
    sent.append(closed)
    if rng.random() < 0.1:
        logs.add(rng.choice(sent[-60:]))
    if rng.random() < 0.08:
        old = sent[max(0, len(sent) - rng.randint(1, 45))]
        changed = round(old.close * rng.uniform(0.95, 1.05), 2)
        logs.add(bar_at(old.ts_open_ms, changed, symbol=symbol, interval=interval, revision=old.revision + rng.randint(0, 1)))
    if rng.random() < 0.05:
        logs.add(bar_at(open_ms - length * rng.randint(1, 30), value + 1, symbol=symbol, interval=interval, revision=rng.randint(0, 2)))
    if rng.random() < 0.6:
        for _ in range(rng.choice([1, 1, 1, 2])):
            logs.add(
                seen(open_ms + length - length * rng.choice([0, 0, 0, 1, 3]), round(rng.random(), 3), symbol=symbol, interval=interval)
            )


def table(clock: VirtualClock, of: Iterable[Instrument], splits: Iterable[InstrumentEvent] = ()) -> Instruments:
    """Return a table of instruments that has been read."""
    known = Instruments(MemoryBus(clock), clock, MODE, "test")
    for one in of:
        known._instruments[one.symbol] = one
    for event in splits:
        known._fold_event(event)
    return known


async def taken_over(recovery: Recovery, committed: Mapping[TopicPartition, Committed | None], partition: int = 0) -> Takeover:
    """Take one partition over, as a worker that is assigned no other does."""
    takeover = (await recovery.survey([partition], committed))[partition]
    await recovery.rebuild(takeover)
    return takeover


def no_tables(bus: Bus, clock: VirtualClock) -> GlobalTables:
    """Return what reads no table inputs."""
    return GlobalTables(bus, clock, [], lambda _: None, "tables")


class Folder:
    """The synchronous half of a worker, with the prompts that its books give."""

    def __init__(
        self,
        settings: Settings,
        *,
        redis: redis_async.Redis | None = None,
        instruments: Iterable[Instrument] = INSTRUMENTS,
        splits: Iterable[InstrumentEvent] = (),
        local_bytes: int = 1 << 24,
    ) -> None:
        self.settings = settings
        self.clock = VirtualClock(START)
        self.instruments = table(self.clock, instruments, splits)
        self.books = Books(settings.fusion, self.instruments)
        self.policy = TriggerPolicy(settings.fusion)
        self.intake = Intake(settings, self.clock, self.books, self.policy)
        self.store = PrefixStore(redis, settings.redis, self.clock, fingerprint(TOKENIZER, "minicpm4", settings.fusion.strategy))
        self.prompts = PromptBuilder(settings.fusion, TOKENIZER, "minicpm4", self.store, local_bytes)

    def feed(self, records: Iterable[Record]) -> None:
        for one in records:
            self.intake.take(one, NullSink())

    def book(self, symbol: str) -> Book:
        found = self.books.get(symbol)
        assert found is not None
        return found

    async def prompt(self, symbol: str, interval: str = "1m") -> Prompt:
        book = self.book(symbol)
        return await self.prompts.build(self.prompts.plan(book, interval, "fast"))

    def as_of(self, symbol: str) -> tuple[int | None, int | None]:
        book = self.book(symbol)
        return book.market_ref.offset if book.market_ref else None, book.vision_ref.offset if book.vision_ref else None
