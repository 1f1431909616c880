"""Prompts: blocks of text, tokenized each on its own, laid out so that within an epoch a prompt only grows.

    head, rules | instrument | slower bars, frozen | pages of W bars | one block a bar since the boundary | tail

A prompt's ids are the concatenation of its blocks' ids, so they are a pure function of the book, whatever came from a cache.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from schemas import Mode
from services.core.settings import FusionSettings
from services.core.tokenizer import Tokenizer
from services.fusion.book import Book, SlowBars
from services.fusion.chat import TEMPLATES, ChatTemplate, Piece, Special
from services.fusion.prefix_store import PrefixStore
from services.fusion.wording import PROMPT_VERSION, REPAIR, RULES, instrument_block
from services.inference.engine import TokenIds

PAGE_BARS: Final = 16
"""Lines of a page: about 500 tokens, so that a slice sent ahead holds the GPU for hardly longer than a decision's own prefill."""

_KEY_BYTES: Final = 16


class Block(NamedTuple):
    """A piece of a prompt with the key of everything up to and including it."""

    key: bytes
    piece: Piece


def fingerprint(tokenizer: Tokenizer, template: str) -> str:
    """Return the name of all that decides which ids a text becomes: tokenizer file, chat template, prompt version."""
    return hashlib.blake2b(f"{tokenizer.fingerprint}/{template}/{PROMPT_VERSION}".encode(), digest_size=8).hexdigest()


def config_version(settings: FusionSettings, tokenizer: Tokenizer, template: str) -> str:
    """Return a hash of every setting that shapes a prompt."""
    shape = (
        fingerprint(tokenizer, template),
        settings.intervals,
        sorted(settings.trigger_interval_set),
        settings.window_bars,
        settings.epoch_slots,
        settings.slow_window_bars,
        settings.max_vision_age_bars,
    )
    return hashlib.blake2b(repr(shape).encode(), digest_size=8).hexdigest()


class Encoder:
    """Turns pieces into ids; those of the template, which every prompt has, once and for all."""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate) -> None:
        """Look up the template's special tokens at once; raise ValueError naming one that the tokenizer lacks."""
        self._tokenizer = tokenizer
        pieces = (*template.head, *template.middle, *template.fast_tail, *template.deep_tail, *template.next_user)
        self._known: dict[Piece, TokenIds] = {
            piece: np.array([tokenizer.special_id(piece.token)], dtype=np.int32) if isinstance(piece, Special) else tokenizer.encode(piece)
            for piece in pieces
        }

    def encode(self, piece: Piece) -> TokenIds:
        """Return the ids of one piece."""
        known = self._known.get(piece)
        return self._text(piece) if known is None else known

    def encode_all(self, pieces: Iterable[Piece]) -> list[TokenIds]:
        """Return the ids of each piece."""
        pieces = list(pieces)
        texts = iter(self._tokenizer.encode_batch([piece for piece in pieces if isinstance(piece, str) and piece not in self._known]))
        return [next(texts) if (known := self._known.get(piece)) is None else known for piece in pieces]

    def _text(self, piece: Piece) -> TokenIds:
        if isinstance(piece, Special):
            raise KeyError(f"the special token {piece.token!r} is not of this template")
        return self._tokenizer.encode(piece)


def chain(parent: bytes, pieces: Iterable[Piece]) -> list[Block]:
    """Return `pieces` as blocks that follow the block with key `parent`."""
    blocks = []
    for piece in pieces:
        content = b"\0" + piece.token.encode() if isinstance(piece, Special) else piece.encode()
        parent = hashlib.blake2b(parent + content, digest_size=_KEY_BYTES).digest()
        blocks.append(Block(parent, piece))
    return blocks


class EpochPrefix:
    """The ids of one epoch's prefix: its base, then a block for each line since the boundary. It only grows."""

    def __init__(self, blocks: list[Block], fixed: int, version: int, index: int) -> None:
        """`blocks` are the base, `fixed` of them before its pages; `version` is the book's and `index` the epoch's."""
        self.blocks = blocks
        self.fixed = fixed
        self.version = version
        self.index = index
        self.epoch = blocks[-1].key.hex()[:12]
        self.filling = asyncio.Lock()
        self.tip = blocks[-1].key
        """Key of the last line that has its ids, of the base when none has."""
        self.unsaved: dict[bytes, TokenIds] = {}
        """Lines whose ids the store has not been given yet."""
        self._ids = np.empty(0, dtype=np.int32)
        self._ends: list[int] = []
        """Where the base and each line after it end."""

    @property
    def filled(self) -> bool:
        """Return whether the base's ids are there."""
        return bool(self._ends)

    @property
    def nbytes(self) -> int:
        """Return the memory that the ids take."""
        return self._ids.nbytes

    @property
    def lines(self) -> int:
        """Return how many lines since the boundary have their ids."""
        return len(self._ends) - 1

    def ids(self, lines: int) -> TokenIds:
        """Return the ids of the base and the first `lines` lines: a view, not to be written to."""
        return self._ids[: self._ends[lines]]

    def append(self, ids: TokenIds) -> None:
        """Grow by the ids of the base (first) or of the next line."""
        start = self._ends[-1] if self._ends else 0
        need = start + len(ids)
        if need > len(self._ids):
            room = np.empty(need + max(4096, need // 4), dtype=np.int32)
            room[:start] = self._ids[:start]
            self._ids = room
        self._ids[start:need] = ids
        self._ends.append(need)


@dataclass(frozen=True, slots=True)
class Plan:
    """A prompt decided on but not yet in ids: it holds all it needs of the book, which may go on changing."""

    prefix: EpochPrefix
    lines: list[str]
    """Of the bars since the boundary."""
    tail: str
    mode: Mode


class Upcoming(NamedTuple):
    """The next epoch's prefix as far as it is known: full pages only, while slots are left."""

    blocks: list[Block]
    fixed: int
    """Blocks before the first page."""
    left: int
    """Scheduled slots until that epoch."""
    total: int
    """Scheduled slots of the current one."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt: `ids` int32, shape (tokens,); `hash` is SHA-256 of them as little-endian int32."""

    ids: TokenIds
    hash: str
    epoch: str
    prefix_tokens: int
    prefix: EpochPrefix


class PromptBuilder:
    """Plans prompts from books and turns plans into ids, through the caches."""

    def __init__(self, settings: FusionSettings, tokenizer: Tokenizer, template: str, store: PrefixStore, local_bytes: int) -> None:
        """`template` names the chat template; half of `local_bytes` each bounds the cached prefixes and the cached pages."""
        self._settings = settings
        self.template = TEMPLATES[template]
        self._encoder = Encoder(tokenizer, self.template)
        self._root = fingerprint(tokenizer, template).encode()
        self._store = store
        self._prefixes: OrderedDict[tuple[str, str], EpochPrefix] = OrderedDict()
        self._pages: OrderedDict[bytes, TokenIds] = OrderedDict()
        self._room = local_bytes // 2
        self._page_bytes = 0
        self.version = config_version(settings, tokenizer, template)

    def plan(self, book: Book, interval: str, mode: Mode, tail: str) -> Plan:
        """Return the plan of a prompt that shows the book as it is now."""
        prefix, base_end = self._current(book, interval)
        return Plan(prefix, book.bars[interval].lines_from(base_end, book.decimals), tail, mode)

    async def build(self, plan: Plan) -> Prompt:
        """Return the prompt of `plan`."""
        prefix = plan.prefix
        await self._fill(prefix, plan.lines)
        self._grow(prefix, plan.lines[prefix.lines :])
        head = prefix.ids(len(plan.lines))
        tail = [self._encoder.encode(piece) for piece in (plan.tail, *self.template.tail(plan.mode))]
        ids = np.concatenate([head, *tail])
        digest = hashlib.sha256(ids.astype("<i4", copy=False).tobytes()).hexdigest()
        return Prompt(ids, digest, prefix.epoch, len(head), prefix)

    def text(self, plan: Plan) -> tuple[str, str]:
        """Return the prompt as (system, user) text, for engines that take no ids."""
        texts = [block.piece for block in plan.prefix.blocks if isinstance(block.piece, str)]
        user = texts[texts.index(RULES) + 1 :]
        middle = [piece for piece in self.template.middle if isinstance(piece, str)]
        return RULES, "".join([*user[len(middle) :], *plan.lines, plan.tail])

    def repair(self, prompt: Prompt, answer: str, mode: Mode) -> TokenIds:
        """Return the ids of a second turn that asks again after `answer`, which could not be used."""
        pieces = (answer[:2000], *self.template.next_user, REPAIR, *self.template.tail(mode))
        return np.concatenate([prompt.ids, *self._encoder.encode_all(pieces)])

    def upcoming(self, book: Book, interval: str) -> Upcoming:
        """Return the prefix that the next epoch will start with, as far as it is known now."""
        bars, epochs = book.bars[interval], book.epochs(interval)
        last_ms = bars.last_close_ms
        index = epochs.index(last_ms)
        until_ms = epochs.start_ms(index + 1)
        left = book.calendar.slots_between(interval, last_ms, until_ms)
        total = book.calendar.slots_between(interval, epochs.start_ms(index), until_ms)
        if left:
            lines = bars.lines_before(len(bars), max(0, self._settings.window_bars - left), book.decimals)
            lines = lines[: len(lines) - len(lines) % PAGE_BARS]
            blocks, fixed = self._based(book, book.next_slow(interval), interval, lines)
        else:
            blocks, fixed = self._next_base(book, interval)
        return Upcoming(blocks, fixed, left, max(1, total))

    def opening(self, book: Book, interval: str, open_ms: int) -> tuple[list[Block], int] | None:
        """Return the base of the prefix of the first bar after `open_ms`, when no bar comes before it, and its fixed blocks.

        None when that bar belongs to the current epoch, whose prefix `current_ids` returns.
        """
        epochs = book.epochs(interval)
        first_ms = book.calendar.next_closes(interval, open_ms, 1)[0]
        return None if epochs.index(first_ms) == epochs.index(book.bars[interval].last_close_ms) else self._next_base(book, interval)

    def current(self, book: Book, interval: str) -> tuple[list[Block], int]:
        """Return the blocks of the current epoch's base, and how many of them come before its pages."""
        prefix = self._current(book, interval)[0]
        return prefix.blocks, prefix.fixed

    async def current_ids(self, book: Book, interval: str) -> TokenIds:
        """Return the ids of the current prefix as far as it has grown: its base, and the lines since the boundary."""
        prompt = await self.build(self.plan(book, interval, "fast", ""))
        return prompt.ids[: prompt.prefix_tokens]

    async def ids_of(self, blocks: list[Block]) -> TokenIds:
        """Return the ids of `blocks`, from the caches where they have them."""
        return np.concatenate(await self._resolve(blocks))

    def hottest(self) -> list[str]:
        """Return the symbols whose prefixes are in use, the latest first."""
        return list(dict.fromkeys(symbol for symbol, _ in reversed(self._prefixes)))

    def forget(self, symbol: str) -> None:
        """Drop the prefixes of `symbol`."""
        for key in [key for key in self._prefixes if key[0] == symbol]:
            del self._prefixes[key]

    @property
    def live_tokens(self) -> int:
        """Return the tokens of all prefixes in use."""
        return sum(len(prefix.ids(prefix.lines)) for prefix in self._prefixes.values() if prefix.filled)

    @property
    def live_prefixes(self) -> int:
        """Return how many prefixes are in use."""
        return len(self._prefixes)

    def _current(self, book: Book, interval: str) -> tuple[EpochPrefix, int]:
        bars, epochs = book.bars[interval], book.epochs(interval)
        index = epochs.index(bars.last_close_ms)
        base_end = bars.first_after(epochs.start_ms(index))
        key = (book.instrument.symbol, interval)
        found = self._prefixes.get(key)
        if found is None or found.index != index or found.version != book.version:
            lines = bars.lines_before(base_end, self._settings.window_bars, book.decimals)
            blocks, fixed = self._based(book, book.frozen_slow(interval), interval, lines)
            found = self._prefixes[key] = EpochPrefix(blocks, fixed, book.version, index)
        self._prefixes.move_to_end(key)
        return found, base_end

    def _next_base(self, book: Book, interval: str) -> tuple[list[Block], int]:
        """Return the base of the next epoch, when no bar of the current one is to come any more."""
        bars = book.bars[interval]
        lines = bars.lines_before(len(bars), self._settings.window_bars, book.decimals)
        return self._based(book, book.next_slow(interval), interval, lines)

    def _based(self, book: Book, slow: SlowBars, interval: str, lines: list[str]) -> tuple[list[Block], int]:
        """Return the blocks of a base, and how many of them come before its pages."""
        pieces: list[Piece] = [*self.template.head, RULES, *self.template.middle, instrument_block(book.instrument)]
        pieces.extend(f"{name} bars:\n{''.join(rows)}" for name, rows in slow.lines)
        pieces.append(f"{interval} bars:\n")
        pieces.extend("".join(lines[at : at + PAGE_BARS]) for at in range(0, len(lines), PAGE_BARS))
        return chain(self._root, pieces), len(pieces) - -(-len(lines) // PAGE_BARS)

    async def _fill(self, prefix: EpochPrefix, lines: list[str]) -> None:
        if prefix.filled:
            return
        async with prefix.filling:
            if not prefix.filled:
                since = chain(prefix.tip, lines)
                ids = await self._resolve([*prefix.blocks, *since])
                base = len(prefix.blocks)
                prefix.append(np.concatenate(ids[:base]))
                for block, line_ids in zip(since, ids[base:], strict=True):
                    prefix.append(line_ids)
                    prefix.tip = block.key
        self._evict()

    def _grow(self, prefix: EpochPrefix, lines: list[str]) -> None:
        """Add the ids of the next lines; a page of them at a time goes to the store, as each write costs more than a line's ids."""
        for block in chain(prefix.tip, lines):
            ids = self._encoder.encode(block.piece)
            prefix.append(ids)
            prefix.tip = block.key
            prefix.unsaved[block.key] = ids
        if len(prefix.unsaved) >= PAGE_BARS:
            self._store.put(prefix.unsaved)
            prefix.unsaved = {}

    async def _resolve(self, blocks: list[Block]) -> list[TokenIds]:
        found = [self._page(block.key) for block in blocks]
        absent = [at for at, ids in enumerate(found) if ids is None]
        if absent:
            stored = await self._store.get([blocks[at].key for at in absent])
            for at, ids in zip(absent, stored, strict=True):
                if ids is not None:
                    found[at] = ids
                    self._keep(blocks[at].key, ids)
        missing = [at for at, ids in enumerate(found) if ids is None]
        if missing:
            pieces = [blocks[at].piece for at in missing]
            # Tokenizing 20,000 tokens takes 39 ms and lets go of the interpreter meanwhile.
            encoded = await asyncio.to_thread(self._encoder.encode_all, pieces)
            for at, ids in zip(missing, encoded, strict=True):
                found[at] = ids
                self._keep(blocks[at].key, ids)
            self._store.put({blocks[at].key: ids for at, ids in zip(missing, encoded, strict=True)})
        return [ids for ids in found if ids is not None]

    def _page(self, key: bytes) -> TokenIds | None:
        ids = self._pages.get(key)
        if ids is not None:
            self._pages.move_to_end(key)
        return ids

    def _keep(self, key: bytes, ids: TokenIds) -> None:
        if key not in self._pages:
            self._pages[key] = ids
            self._page_bytes += ids.nbytes
            while self._page_bytes > self._room and len(self._pages) > 1:
                _, dropped = self._pages.popitem(last=False)
                self._page_bytes -= dropped.nbytes

    def _evict(self) -> None:
        total = sum(prefix.nbytes for prefix in self._prefixes.values())
        while total > self._room and len(self._prefixes) > 1:
            _, dropped = self._prefixes.popitem(last=False)
            total -= dropped.nbytes
