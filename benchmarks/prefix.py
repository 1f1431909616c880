"""Share of prompt tokens that the engine's cache already holds: epochs, with and without sending ahead, against a sliding window.

Five real stocks, bar by bar, each bar asked about once, through the worker's book, prompt builder and prefix sender, into the
simulator's radix tree with the capacity of a real GPU and least-recently-used eviction. Only tokens are counted; no time passes. The
sliding window shows the same lines and tail, with its oldest line dropped for each new one. Tails stay in the tree until evicted;
answers are left out.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import numpy as np

from benchmarks.harness import Measured, run_alone, say
from schemas import Instrument, InstrumentEvent, MarketFeatures, RunMode
from services.core.bus import Record
from services.core.calendar import SessionCalendar
from services.core.clock import SystemClock
from services.core.fusion_settings import FusionSettings
from services.core.instruments import Instruments
from services.core.settings import EngineSettings, RedisSettings, Settings
from services.core.tokenizer import Tokenizer
from services.feeds.samples import INTERVAL, load_instruments, load_splits, load_stocks
from services.fusion.prompt.builder import PromptBuilder
from services.fusion.prompt.facts import facts
from services.fusion.prompt.layout import tail_text
from services.fusion.prompt.lines import Rows, digits_for
from services.fusion.prompt.prewarm import Prewarmer
from services.fusion.prompt.rules import rules
from services.fusion.prompt.store import PrefixStore
from services.fusion.prompt.traffic import EngineTraffic
from services.fusion.prompt.wording import QUESTION, bars_heading, instrument_block
from services.fusion.service import load_tokenizer
from services.fusion.state.book import Book
from services.fusion.state.books import Books
from services.inference.engine import Chunk, EngineError, EngineInfo, EngineLoad, EngineRequest, Scores, TokenIds, Usage
from services.inference.sglang_client import CAPABILITIES
from services.inference.simulator.radix import RadixTree
from services.inference.simulator.timing import Calibration
from services.market.book import Book as MarketBook
from services.strategy.folder import shipped

MODE: Final = RunMode.DEMO
WINDOW_BARS: Final = 256
EPOCHS: Final = (16, 32, 64)
_CALIBRATION: Final = Path(__file__).parents[1] / "services" / "inference" / "data" / "calibration-h100.json"


@dataclass(slots=True)
class Hits:
    """Prompt tokens and those of them that were cached."""

    calls: int = 0
    prompt: int = 0
    cached: int = 0

    def add(self, prompt: int, cached: int) -> None:
        self.calls += 1
        self.prompt += prompt
        self.cached += cached

    @property
    def ratio(self) -> float:
        return self.cached / max(1, self.prompt)


class TreeEngine:
    """The simulator's cache as an engine that only warms."""

    def __init__(self, kv_capacity_tokens: int, unfound: int) -> None:
        """`unfound` tokens at the end of a common prefix are never found (EAGLE keys the cache by pairs)."""
        self._tree = RadixTree()
        self._capacity = kv_capacity_tokens
        self._unfound = unfound

    name = "radix-tree"
    capabilities = CAPABILITIES

    def cached(self, ids: TokenIds) -> int:
        """Return how much of a prompt is held, and hold it all."""
        held, _ = self._tree.match(ids[:-1])
        self._tree.insert(ids)
        if self._tree.tokens > self._capacity:
            self._tree.evict(self._tree.tokens - self._capacity)
        return max(0, held - self._unfound)

    async def warm(self, rid: str, affinity: str, input_ids: TokenIds) -> Usage:
        del rid, affinity
        return Usage(prompt_tokens=len(input_ids), output_tokens=0, cached_tokens=self.cached(input_ids))

    async def info(self) -> EngineInfo:
        return EngineInfo(self.name, "simulator", "none", kv_capacity_tokens=self._capacity)

    def stream(self, request: EngineRequest) -> AsyncGenerator[Chunk, None]:
        raise EngineError("engine_refused", f"this engine only warms; call {request.rid} wants an answer")

    async def score(self, request: EngineRequest, labels: TokenIds) -> Scores:
        raise EngineError("engine_refused", f"{request.rid}: no log-probabilities of {labels.size} labels here")

    async def load(self, affinity: str | None = None) -> EngineLoad | None:
        del affinity
        return None

    async def watch(self) -> None:
        pass

    async def close(self) -> None:
        """Nothing is open."""


class Shelf:
    """The instruments and splits of the samples, as a worker knows them."""

    def __init__(self) -> None:
        self._instruments = {one.symbol: one for one in load_instruments(MODE)}
        self._splits = load_splits(MODE)

    def get(self, symbol: str) -> Instrument | None:
        return self._instruments.get(symbol)

    def restatements(self, symbol: str) -> list[InstrumentEvent]:
        return [split for split in self._splits if split.symbol == symbol]


async def measure(quick: bool) -> Measured:  # noqa: FBT001 - the harness calls it
    """Walk through the stocks once for each layout."""
    calibration = Calibration.from_file(_CALIBRATION)
    unfound = 1 if calibration.speculation.draft_tokens > 1 else 0
    tokenizer = load_tokenizer(EngineSettings())
    shelf = Shelf()
    feed = list(by_time(shelf, 160 if quick else None))
    measured = Measured(
        rows=[],
        setting={
            "bars": len(feed),
            "window_bars": WINDOW_BARS,
            "kv_capacity_tokens": calibration.limits.kv_capacity_tokens,
            "asked": f"every bar from a symbol's {WINDOW_BARS}th on",
        },
    )

    def engine() -> TreeEngine:
        return TreeEngine(calibration.limits.kv_capacity_tokens, unfound)

    for slots in EPOCHS:
        for ahead in (False, True):
            decisions, sent = await epochs(shelf, feed, tokenizer, engine(), slots, ahead=ahead)
            measured.rows.append(_row("epochs", slots, decisions, sent, ahead=ahead))
            say(str(measured.rows[-1]))
    measured.rows.append(_row("sliding window", None, sliding(shelf, feed, tokenizer, engine()), Hits(), ahead=False))
    say(str(measured.rows[-1]))
    return measured


def by_time(shelf: Shelf, last: int | None) -> Iterator[MarketFeatures]:
    """Yield the stocks' bars with their features in order of time, the window and the `last` bars of each (None: all)."""
    made: list[MarketFeatures] = []
    for symbol, candles in load_stocks(MODE).items():
        instrument = shelf.get(symbol)
        assert instrument is not None
        book = MarketBook(instrument, shelf.restatements(symbol), {})
        bars = [bar for number, candle in enumerate(candles) for bar in book.take(candle, number).out]
        made.extend(bars if last is None else bars[-WINDOW_BARS - last :])
    return iter(sorted(made, key=lambda bar: (bar.ts_close_ms, bar.symbol)))


async def epochs(
    shelf: Shelf, feed: list[MarketFeatures], tokenizer: Tokenizer, engine: TreeEngine, slots: int, *, ahead: bool
) -> tuple[Hits, Hits]:
    """Return the hits of decisions and of what was sent ahead, with epochs of `slots` slots."""
    settings = Settings(
        run_mode=MODE, fusion=FusionSettings(intervals=[INTERVAL], window_bars=WINDOW_BARS, epoch_slots=slots, prewarm=ahead)
    )
    store = PrefixStore(None, RedisSettings(url="none://"), SystemClock(), "benchmark")
    prompts = PromptBuilder(settings.fusion, tokenizer, settings.engine.chat_template, store, settings.redis.local_bytes)
    books = Books(settings.fusion, cast("Instruments", shelf))  # as much of them as books look at
    prewarmer = Prewarmer(settings, SystemClock(), engine, prompts, books, traffic=EngineTraffic())
    sending = asyncio.create_task(prewarmer.run())
    hits = Hits()
    for bar in feed:
        book = books.get_or_create(bar.symbol, Record("market-features", 0, 0, bar.ts_close_ms, None, None))
        assert isinstance(book, Book)
        book.fold_market(bar)
        if len(book.bars[INTERVAL]) < WINDOW_BARS:
            continue
        prompt = await prompts.build(prompts.plan(book, INTERVAL, "fast"))
        hits.add(len(prompt.ids), engine.cached(prompt.ids))
        prewarmer.after_decision(bar.symbol, INTERVAL)
        await prewarmer.idle()
    sending.cancel()
    return hits, Hits(prewarmer.count.calls, prewarmer.count.prompt_tokens, prewarmer.count.cached_tokens)


def sliding(shelf: Shelf, feed: list[MarketFeatures], tokenizer: Tokenizer, engine: TreeEngine) -> Hits:
    """Return the hits of a window of the last bars, which moves with each bar."""
    settings = FusionSettings(intervals=[INTERVAL], window_bars=WINDOW_BARS)
    books: dict[str, Book] = {}
    digits: dict[str, int] = {}
    encode = _remembering(tokenizer)
    hits = Hits()
    for bar in feed:
        instrument = shelf.get(bar.symbol)
        assert instrument is not None
        book = books.get(bar.symbol)
        if book is None:
            book = books[bar.symbol] = Book(instrument, settings, SessionCalendar.of(instrument.calendar))
            for split in shelf.restatements(bar.symbol):
                book.add_restatement(split)
        book.fold_market(bar)
        bars = book.bars[INTERVAL]
        if len(bars) < WINDOW_BARS:
            continue
        shown = digits.setdefault(bar.symbol, digits_for(book.epochs.frozen(INTERVAL).range_bp))
        rows = Rows(book, INTERVAL, shown).before(len(bars), WINDOW_BARS)
        pieces = [rules(shipped(), "line"), instrument_block(instrument, book.calendar.zone), bars_heading(INTERVAL, shown), *rows]
        ids = np.concatenate([*map(encode, pieces), tokenizer.encode(_tail(book))])
        hits.add(len(ids), engine.cached(ids))
    return hits


def _tail(book: Book) -> str:
    vision = book.current_vision(INTERVAL)
    return tail_text(book, INTERVAL, book.epochs.frozen(INTERVAL), vision, facts(book, INTERVAL, vision)) + QUESTION["line"]


def _remembering(tokenizer: Tokenizer) -> Callable[[str], TokenIds]:
    known: dict[str, TokenIds] = {}

    def encode(text: str) -> TokenIds:
        found = known.get(text)
        if found is None:
            found = known[text] = tokenizer.encode(text)
        return found

    return encode


def _row(layout: str, slots: int | None, decisions: Hits, sent: Hits, *, ahead: bool) -> dict[str, object]:
    whole = Hits(decisions.calls + sent.calls, decisions.prompt + sent.prompt, decisions.cached + sent.cached)
    return {
        "layout": layout,
        "K": slots if slots is not None else "-",
        "sent ahead": "yes" if ahead else "no",
        "decisions": decisions.calls,
        "prompt tokens": round(decisions.prompt / max(1, decisions.calls)),
        "hits of decisions": round(decisions.ratio, 4),
        "hits of all calls": round(whole.ratio, 4),
        "computed tokens a decision": round((whole.prompt - whole.cached) / max(1, decisions.calls)),
    }


if __name__ == "__main__":
    sys.exit(run_alone("prefix", __doc__, measure))
