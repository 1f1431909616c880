"""Pre-warming: sends prefixes to the engine before a decision needs them. A cold 32K prefix holds the GPU for 1.66 s.

One call is in flight at a time, and after a decision at most one slice of the symbol's next prefix is sent, once two pages of it are due.
It takes only what the engine has idle: a call waits while a decision of this worker holds a permit, for up to a minute while one is soon
to come as the last quiet times tell, and while calls wait on the engine; a decision that begins ends it. What the engine had computed by
then stays cached, and the rest is sent later. While the session is closed the rest follows without waiting for decisions. Before the
session opens all of it is sent again, because the engine may have evicted it. New and restarted engines are warmed with the current
prefixes, the most recently used first.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import Final, Literal
from uuid import uuid4

import structlog

from schemas import RunMode, interval_ms
from services.core import metrics
from services.core.calendar import CalendarError
from services.core.clock import Clock
from services.core.settings import Settings
from services.fusion.prompt.blocks import Block
from services.fusion.prompt.builder import PromptBuilder
from services.fusion.prompt.layout import PAGE_BARS
from services.fusion.prompt.traffic import EngineTraffic
from services.fusion.prompt.warm_prefixes import WarmPrefixes, current_epoch
from services.fusion.state.book import Book
from services.fusion.state.books import Books
from services.inference.engine import Engine, EngineError, TokenIds

_COLD_PAGES: Final = 2
"""Pages of a whole prefix that are sent at once: about 1,000 tokens. A step is not interrupted, so that a decision which begins waits for
it: 2,000 took an H200 181 ms behind 32K cached ones."""

_KNOWN_SHARE: Final = 0.75
"""Of the next epoch's pages: when as many have been sent, the first decision of that epoch counts as one on a cached prefix."""

_RECHECK_MS: Final = 60_000
"""How often the calendars in use are read again: symbols come and go."""

_STEPS: Final = 8
"""Calls whose median is the time of a step. Their mean is not: one call that the engine took 60 s over would count for the next hundred."""

_BEGUN_SHARE: Final = 0.25
"""Of the time of a call, after which an engine without decisions has begun its step, and computes it though the call ends: SGLang's
scheduler looks at what came in, ends included, between two steps."""

Key = tuple[str, str]
"""Symbol and interval."""

_log = structlog.get_logger()


@dataclass(slots=True)
class WarmCount:
    """Calls and tokens that pre-warming has used so far."""

    calls: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0


class Prewarmer:
    """Chooses the next slice and sends it."""

    def __init__(
        self, settings: Settings, clock: Clock, engine: Engine, prompts: PromptBuilder, books: Books, *, traffic: EngineTraffic
    ) -> None:
        """Send prefixes of `books` to `engine`; `clock` tells when sessions open, in `live` and `shadow`."""
        self._settings = settings
        self._clock = clock
        self._engine = engine
        self._prompts = prompts
        self._books = books
        self._traffic = traffic
        self.prefixes = WarmPrefixes()
        self._ahead: dict[Key, list[bytes]] = {}
        """Keys of the blocks of a symbol's next prefix that the engine has been sent."""
        self._queue: dict[Key, None] = {}
        """Symbols whose next slice is due, the longest first."""
        self._current: dict[Key, None] = {}
        self._opening: deque[tuple[Key, int]] = deque()
        self._opened: dict[str, int] = {}
        """By calendar, the open before which prefixes were last sent."""
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._took_ms: deque[float] = deque(maxlen=_STEPS)
        """How long the last calls took; empty on an engine that yields to a decision at once."""
        self._guessed: set[str] = set()
        """Symbols of which the last call was ended when its step had begun, as far as its time tells: it may have waited in a queue."""
        self.count = WarmCount()

    def after_decision(self, symbol: str, interval: str) -> None:
        """Queue one slice of this symbol's next prefix."""
        key = (symbol, interval)
        if self._enabled and key not in self._queue:
            self._queue[key] = None
            self._wake_up()

    def warm_current(self, symbols: Iterable[str]) -> None:
        """Queue the current prefixes of `symbols`, in this order, before anything else."""
        if not self._enabled:
            return
        for symbol in symbols:
            for interval in sorted(self._settings.fusion.trigger_interval_set):
                self._current.setdefault((symbol, interval))
        self._wake_up()

    def warm_all(self) -> None:
        """Queue the current prefixes of all symbols in the order of their last records, in which a feed's next records come too.

        In another order a prefix often comes after its decision. Symbols without a record for longer than a bar come last.
        """
        longest_ms = max(interval_ms(interval) for interval in self._settings.fusion.trigger_interval_set)
        last_ms = {book.instrument.symbol: ref.ts_ms for book in self._books if (ref := book.market_ref) is not None}
        newest_ms = max(last_ms.values(), default=0)
        self.warm_current(sorted(last_ms, key=lambda symbol: (newest_ms - last_ms[symbol] > longest_ms, last_ms[symbol], symbol)))

    def forget(self, symbol: str) -> None:
        """Drop the state of `symbol`."""
        for key in [key for key in self._ahead if key[0] == symbol]:
            del self._ahead[key]
        self._guessed.discard(symbol)
        self.prefixes.forget(symbol)

    async def idle(self) -> None:
        """Return once nothing is left to send."""
        await self._idle.wait()

    async def run(self) -> None:
        """Send slices, one at a time, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._send_queued(), name="prewarm-slices")
            if follows_opens(self._settings):
                tasks.create_task(self._follow_opens(), name="prewarm-opens")

    async def _send_queued(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._current or self._opening or self._queue:
                await self._traffic.quiet(self._step_ms)
                try:
                    await self._send_next()
                except EngineError as error:
                    # Decisions report the state of the engine. This prefix is computed when a decision needs it; the others are tried,
                    # since another engine may serve them, or the same one again.
                    _log.info("prewarm_failed", reason=error.reason)
                except CalendarError as error:
                    _log.warning("prewarm_without_calendar", error=str(error))
            self._idle.set()

    async def _follow_opens(self) -> None:
        """Queue every symbol's next prefix `prewarm_before_open_ms` before each session, until cancelled."""
        while True:
            next_ms = self._queue_due_opens(self._clock.now_ms())
            await self._clock.sleep_until(next_ms)

    def _queue_due_opens(self, now_ms: int) -> int:
        """Queue what is due, and return when to call again."""
        next_ms = now_ms + _RECHECK_MS
        calendars = {book.calendar.name: book.calendar for book in self._books if not book.calendar.always_open}
        for name, calendar in calendars.items():
            try:
                open_ms = calendar.next_open_ms(now_ms + 1)
            except CalendarError as error:
                _log.warning("prewarm_without_calendar", error=str(error))
                continue
            due_ms = open_ms - self._settings.fusion.prewarm_before_open_ms
            if now_ms < due_ms:
                next_ms = min(next_ms, due_ms)
            elif self._opened.get(name) != open_ms:
                self._opened[name] = open_ms
                self._queue_opening(name, open_ms)
        return next_ms

    def _queue_opening(self, calendar: str, open_ms: int) -> None:
        if not self._enabled:
            return
        hottest = {symbol: at for at, symbol in enumerate(self._prompts.hottest())}
        symbols = [book.instrument.symbol for book in self._books if book.calendar.name == calendar]
        for symbol in sorted(symbols, key=lambda symbol: (hottest.get(symbol, len(hottest)), symbol)):
            self._opening.extend(((symbol, i), open_ms) for i in sorted(self._settings.fusion.trigger_interval_set))
        _log.info("prewarm_before_open", calendar=calendar, symbols=len(symbols), open_ms=open_ms)
        self._wake_up()

    @property
    def _enabled(self) -> bool:
        return self._settings.fusion.prewarm and self._engine.capabilities.prewarm

    @property
    def _step_ms(self) -> float:
        return median_low(self._took_ms) if self._took_ms else 0.0

    def _wake_up(self) -> None:
        if self._current or self._opening or self._queue:
            self._idle.clear()
            self._wake.set()

    async def _send_next(self) -> None:
        if self._current:
            key = next(iter(self._current))
            del self._current[key]
            if (book := await self._sendable(key)) is not None:
                await self._send_current(key, book)
        elif self._opening:
            key, open_ms = self._opening.popleft()
            if (book := await self._sendable(key)) is not None:
                await self._send_opening(key, book, open_ms)
        else:
            key = next(iter(self._queue))
            del self._queue[key]
            if (book := await self._sendable(key)) is not None:
                await self._send_slice(key, book, key[1])

    async def _sendable(self, key: Key) -> Book | None:
        """Return the book of `key`, None when it has too few bars or calls wait on the engine."""
        symbol, interval = key
        book = self._books.get(symbol)
        if book is None or len(book.bars[interval]) < self._settings.fusion.min_bars:
            return None
        load = await self._engine.load(symbol)
        if load is not None and (load.waiting or load.waiting_uncached_tokens > self._settings.engine.max_waiting_uncached_tokens):
            return None
        return book

    async def _send_current(self, key: Key, book: Book) -> None:
        """Send the current prefix in slices, until a decision has computed it all."""
        symbol, interval = key

        def held() -> bool:
            return self.prefixes.holds(book, interval)

        blocks, fixed = self._prompts.current(book, interval)
        for end in range(fixed + _COLD_PAGES, len(blocks), _COLD_PAGES):
            if held():
                return
            await self._send_whole(symbol, await self._prompts.ids_of(blocks[:end]), held, more=True)
        epoch = current_epoch(book, interval)
        await self._send_whole(symbol, await self._prompts.current_ids(book, interval), held)
        self.prefixes.add(symbol, interval, *epoch)

    async def _send_opening(self, key: Key, book: Book, open_ms: int) -> None:
        symbol, interval = key
        base = self._prompts.opening(book, interval, open_ms)
        if base is None:
            await self._send_current(key, book)
            return
        blocks, fixed = base
        for end in range(fixed + _COLD_PAGES, len(blocks) + _COLD_PAGES, _COLD_PAGES):
            await self._send_whole(symbol, await self._prompts.ids_of(blocks[:end]), more=end < len(blocks))

    async def _send_slice(self, key: Key, book: Book, interval: str) -> None:
        """Send the next slice of the next epoch's prefix, once enough of the current epoch has passed."""
        blocks, fixed, left, total = self._prompts.upcoming(book, interval)
        if len(blocks) <= fixed:
            return
        # A revised bar changes every block after it: only the blocks before it count as sent.
        sent = max(fixed, _in_common(self._ahead.get(key, ()), blocks))
        pages = -(-self._settings.fusion.window_bars // PAGE_BARS)
        due = fixed + -(-pages * (total - left) // total) if left else len(blocks)
        goal = min(len(blocks), due)
        if sent >= goal:
            return
        slice_pages = max(_COLD_PAGES, -(-pages // total))
        if left and goal - sent < slice_pages:
            return
        sent = min(goal, sent + (slice_pages if goal - sent <= slice_pages else 2 * slice_pages))
        index, version = current_epoch(book, interval)
        outcome = await self._send(key[0], await self._prompts.ids_of(blocks[:sent]))
        if outcome == "cut" or (outcome == "begun" and sent == goal and not left):
            self._queue.setdefault(key)
            return
        self._ahead[key] = [block.key for block in blocks[:sent]]
        # A step that has begun is a guess: the call may have waited in the engine's queue. The next slice computes what it left.
        if outcome == "computed" and sent - fixed >= _KNOWN_SHARE * pages:
            self.prefixes.add(key[0], interval, index + 1, version)
        if not left and sent < goal:
            self._queue.setdefault(key)

    async def _send_whole(self, symbol: str, ids: TokenIds, held: Callable[[], bool] = lambda: False, *, more: bool = False) -> None:
        """Send `ids`, as often as decisions end the call, unless the engine has them: `held`.

        With `more` to follow, which will compute what this call leaves, a step that has begun will do.
        """
        enough = {"computed", "begun"} if more else {"computed"}
        await self._traffic.quiet(self._step_ms)
        while not held() and await self._send(symbol, ids) not in enough:
            await self._traffic.quiet(self._step_ms)

    async def _send(self, symbol: str, ids: TokenIds) -> Literal["computed", "begun", "cut"]:
        """Send `ids`. A decision that begins ends the call, "begun" after a time in which an idle engine has begun its step.

        Not twice in a row for a symbol: had both waited in the engine's queue, the step after them would compute three slices.
        """
        if self._traffic.decisions:
            return "cut"  # one that began while the engine was asked for its load, or the ids were encoded
        began_s = self._clock.elapsed_s()
        sending = asyncio.create_task(self._engine.warm(uuid4().hex, symbol, ids), name=f"warm {symbol}")
        busy = asyncio.create_task(self._traffic.busy(), name="decision-begins")
        try:
            await asyncio.wait([sending, busy], return_when=asyncio.FIRST_COMPLETED)
            took_ms = (self._clock.elapsed_s() - began_s) * 1000
            if not sending.done():
                begun = took_ms > _BEGUN_SHARE * self._step_ms > 0 and symbol not in self._guessed
                if begun:
                    self._guessed.add(symbol)
                return "begun" if begun else "cut"
            usage = sending.result()
        finally:
            for task in (sending, busy):
                task.cancel()
            await asyncio.wait([sending, busy])
        if not self._engine.capabilities.prewarm_yields:
            self._took_ms.append(took_ms)
        self._guessed.discard(symbol)
        self.count.calls += 1
        self.count.prompt_tokens += usage.prompt_tokens
        self.count.cached_tokens += usage.cached_tokens or 0
        metrics.PROMPT_TOKENS.labels("warm").inc(usage.prompt_tokens)
        metrics.CACHED_TOKENS.labels("warm").inc(usage.cached_tokens or 0)
        return "computed"


def follows_opens(settings: Settings) -> bool:
    """Return whether prefixes are sent before sessions open. Recorded data has its own time, which no clock here follows."""
    return settings.run_mode in {RunMode.LIVE, RunMode.SHADOW} and settings.fusion.prewarm_before_open_ms > 0


def _in_common(sent: Sequence[bytes], blocks: Sequence[Block]) -> int:
    """Return how many leading blocks of `blocks` were sent."""
    differing = (at for at, (key, block) in enumerate(zip(sent, blocks, strict=False)) if key != block.key)
    return next(differing, min(len(sent), len(blocks)))
