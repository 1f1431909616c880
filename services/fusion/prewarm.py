"""Sends prefixes ahead, so that no decision pays for a cold one: a whole 32K prefix would hold the GPU for 1.66 s.

After each decision at most one slice of the symbol's next prefix goes out, and one is in flight at a time; while the session is
closed the rest follows without waiting for decisions. New or restarted engines are warmed with the current prefixes, hottest first.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

import structlog

from services.core import metrics
from services.core.settings import Settings
from services.fusion.book import Book
from services.fusion.books import Books
from services.fusion.prompt import PAGE_BARS, Block, PromptBuilder
from services.inference.engine import Engine, EngineError, Usage

_COLD_PAGES: Final = 4
"""Pages of a current prefix that are sent at once: about 2,000 tokens, a tenth of a second of the GPU."""

_log = structlog.get_logger()


@dataclass(slots=True)
class _Ahead:
    """How much of a symbol's next prefix the engine has been sent."""

    root: bytes
    """Key of its first page: another one means another prefix."""
    blocks: int


@dataclass(slots=True)
class WarmCount:
    """What sending ahead has cost so far."""

    calls: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0


class Prewarmer:
    """Decides which slice goes out next and sends it."""

    def __init__(self, settings: Settings, engine: Engine, prompts: PromptBuilder, books: Books) -> None:
        """Send to `engine` what `prompts` lays out of `books`."""
        self._settings = settings
        self._engine = engine
        self._prompts = prompts
        self._books = books
        self._ahead: dict[tuple[str, str], _Ahead] = {}
        self._queue: deque[tuple[str, str]] = deque()
        self._current: deque[tuple[str, str]] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.count = WarmCount()

    def after_decision(self, symbol: str, interval: str) -> None:
        """Let one slice of this symbol's next prefix go out."""
        key = (symbol, interval)
        if self._enabled and key not in self._queue:
            self._queue.append(key)
            self._stir()

    def warm_current(self, symbols: Iterable[str]) -> None:
        """Send the current prefixes of `symbols` ahead, in this order, before anything else."""
        if not self._enabled:
            return
        for symbol in symbols:
            for interval in sorted(self._settings.fusion.trigger_interval_set):
                if (symbol, interval) not in self._current:
                    self._current.append((symbol, interval))
        self._stir()

    def forget(self, symbol: str) -> None:
        """Drop what is known of `symbol`."""
        for key in [key for key in self._ahead if key[0] == symbol]:
            del self._ahead[key]

    async def idle(self) -> None:
        """Return once nothing is left to send."""
        await self._idle.wait()

    async def run(self) -> None:
        """Send slices, one at a time, for ever; cancel to end."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._current or self._queue:
                try:
                    await self._send_next()
                except EngineError as error:
                    # The decisions will tell of the engine's state; what was not sent ahead is paid for then.
                    _log.info("prewarm_failed", reason=error.reason)
                    self._current.clear()
                    self._queue.clear()
            self._idle.set()

    @property
    def _enabled(self) -> bool:
        return self._settings.fusion.prewarm and self._engine.accepts_ids

    def _stir(self) -> None:
        if self._current or self._queue:
            self._idle.clear()
            self._wake.set()

    async def _send_next(self) -> None:
        symbol, interval = key = (self._current or self._queue)[0]
        starting = bool(self._current)
        (self._current or self._queue).popleft()
        book = self._books.get(symbol)
        if book is None or len(book.bars[interval]) < self._settings.fusion.min_bars:
            return
        load = await self._engine.load(symbol)
        if load is not None and load.waiting_uncached_tokens > self._settings.engine.max_waiting_uncached_tokens:
            return
        if starting:
            blocks, fixed = self._prompts.current(book, interval)
            for end in range(fixed + _COLD_PAGES, len(blocks) + _COLD_PAGES, _COLD_PAGES):
                await self._send(symbol, blocks[:end])
        else:
            await self._send_slice(key, book, interval)

    async def _send_slice(self, key: tuple[str, str], book: Book, interval: str) -> None:
        """Send the next slice of the next epoch's prefix, when the epoch has come far enough for it."""
        blocks, fixed, left, total = self._prompts.upcoming(book, interval)
        if len(blocks) <= fixed:
            return
        root = blocks[fixed].key
        ahead = self._ahead.get(key)
        if ahead is None or ahead.root != root:
            ahead = self._ahead[key] = _Ahead(root, fixed)
        pages = -(-self._settings.fusion.window_bars // PAGE_BARS)
        due = fixed + -(-pages * (total - left) // total) if left else len(blocks)
        goal = min(len(blocks), due)
        if ahead.blocks >= goal:
            return
        slice_pages = -(-pages // total)
        ahead.blocks = min(goal, ahead.blocks + (slice_pages if goal - ahead.blocks <= slice_pages else 2 * slice_pages))
        await self._send(key[0], blocks[: ahead.blocks])
        if not left and ahead.blocks < goal:
            self._queue.append(key)

    async def _send(self, symbol: str, blocks: list[Block]) -> Usage:
        ids = await self._prompts.ids_of(blocks)
        usage = await self._engine.warm(uuid4().hex, symbol, ids)
        self.count.calls += 1
        self.count.prompt_tokens += usage.prompt_tokens
        self.count.cached_tokens += usage.cached_tokens or 0
        metrics.PROMPT_TOKENS.labels("warm").inc(usage.prompt_tokens)
        metrics.CACHED_TOKENS.labels("warm").inc(usage.cached_tokens or 0)
        return usage
