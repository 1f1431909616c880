"""Prompts: the pieces of the layout as blocks, each tokenized on its own.

A prompt's ids are the concatenation of its blocks' ids, so they are a pure function of the book, whatever came from a cache.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final, NamedTuple

import numpy as np

from schemas import Mode
from services.core.fusion_settings import FusionSettings
from services.core.table_inputs import check_shown
from services.core.tokenizer import Tokenizer
from services.fusion.inputs.tables import Tables
from services.fusion.prompt import wording
from services.fusion.prompt.blocks import Block, Encoder, Run, chain, runs
from services.fusion.prompt.cache import BlockCache
from services.fusion.prompt.chat import TEMPLATES
from services.fusion.prompt.facts import NO_FACTS, facts
from services.fusion.prompt.labels import Labels, labels_of, question
from services.fusion.prompt.layout import PAGE_BARS, Base, Layout, tail_text
from services.fusion.prompt.lines import shows_dates
from services.fusion.prompt.prefix import RUN_BLOCKS, EpochPrefix
from services.fusion.prompt.rules import rules
from services.fusion.prompt.short_tail import short_tail
from services.fusion.prompt.store import PrefixStore
from services.fusion.prompt.version import version_of
from services.fusion.state.book import Book
from services.fusion.state.view import view_of
from services.fusion.state.vision_windows import CurrentVision
from services.inference.engine import THOUGHT_END, TokenIds
from services.strategy.hooks import BookView, Hooks
from services.strategy.model import Strategy

_HASHED_AFTER_S: Final = 0.005
"""Hashing 32K ids takes 0.13 ms, a twentieth of the time from a record to its request: it runs while the engine works."""


def fingerprint(tokenizer: Tokenizer, template: str, strategy: Strategy) -> str:
    """Return a hash of all that decides which ids a text becomes: tokenizer file, chat template, prompt version."""
    return hashlib.blake2b(f"{tokenizer.fingerprint}/{template}/{version_of(strategy)}".encode(), digest_size=8).hexdigest()


def config_version(settings: FusionSettings, tokenizer: Tokenizer, template: str) -> str:
    """Return a hash of every setting that shapes a prompt."""
    shape = (
        fingerprint(tokenizer, template, settings.strategy),
        settings.answer_form,
        settings.rationale,
        settings.intervals,
        sorted(settings.trigger_interval_set),
        settings.window_bars,
        settings.epoch_slots,
        [settings.slow_window(interval) for interval in settings.intervals],
        settings.max_vision_age_bars,
        settings.notes_max_tokens,
        settings.notes_max_age_ms,
        *(() if settings.day_zero_ms is None else (settings.day_zero_ms,)),
        *((settings.mode,) if settings.mode == "flash" else ()),
    )
    return hashlib.blake2b(repr(shape).encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class Plan:
    """A question about a book that is laid out but not yet in ids: it holds all it needs of the book, which may go on changing."""

    prefix: EpochPrefix
    lines: list[str]
    """Of the bars since the boundary."""
    tail: str
    mode: Mode
    vision: CurrentVision
    facts: Mapping[str, float]
    """The last close, its features and what the tail says, as plain values: prices are made of some whether or not they are shown."""
    view: BookView | None
    """What hooks see; None without hooks."""


class Upcoming(NamedTuple):
    """The next epoch's prefix as far as it is known: full pages only, while slots are left."""

    blocks: list[Block]
    fixed: int
    """Blocks before the first page."""
    left: int
    """Scheduled slots until that epoch."""
    total: int
    """Scheduled slots of the current one."""


@dataclass(frozen=True)
class Prompt:
    """A prompt: `ids` int32, shape (tokens,)."""

    ids: TokenIds
    epoch: str
    prefix_tokens: int
    prefix: EpochPrefix
    version: str
    """The prompt version."""

    @cached_property
    def hash(self) -> str:
        """Return SHA-256 of the ids as little-endian int32."""
        return hashlib.sha256(self.ids.astype("<i4", copy=False).tobytes()).hexdigest()


class PromptBuilder:
    """Plans prompts from books and turns plans into ids, through the caches."""

    def __init__(self, settings: FusionSettings, tokenizer: Tokenizer, template: str, store: PrefixStore, local_bytes: int) -> None:
        """`template` names the chat template; half of `local_bytes` each bounds the cached prefixes and the cached pages.

        Raises StrategyError when a hook or an input of the strategy is not installed.
        """
        self._settings = settings
        self.hooks = Hooks.of(settings.strategy)
        check_shown(settings.strategy.inputs)
        self.template = TEMPLATES[template]
        self.rules = rules(settings.strategy, settings.answer_form, flash=settings.mode == "flash")
        self._layout = Layout(self.template, self.rules, settings)
        self._encoder = Encoder(tokenizer, self.template)
        self._tokenizer = tokenizer
        self._root = fingerprint(tokenizer, template, settings.strategy).encode()
        self._store = store
        self._prefixes: OrderedDict[tuple[str, str], EpochPrefix] = OrderedDict()
        """The latest last. None is dropped while its symbol has a book: only their bases' ids are evicted."""
        self._base_bytes = local_bytes // 2
        self._cache = BlockCache(self._encoder, store, local_bytes // 2)
        self.version = config_version(settings, tokenizer, template)
        self.prompt_version = version_of(settings.strategy)
        self.tables: Tables | None = None
        """What the tail shows of the inputs that are read as tables; None shows nothing of them."""
        self._tokens_in = lru_cache(maxsize=4096)(lambda text: int(tokenizer.encode(text).size))

    @cached_property
    def labels(self) -> Labels:
        """Return the labels of mode `flash`; raise ValueError when the tokenizer has none."""
        return labels_of(self._tokenizer)

    @cached_property
    def first_words(self) -> Labels | None:
        """Return the tokens that an answer of mode `fast` begins with, None where they say no action: in JSON, or as several tokens."""
        if self._settings.answer_form != "line":
            return None
        try:
            labels = self.labels
        except ValueError:
            return None
        return labels if all(text == action for action, text in labels.texts.items()) else None

    def plan(self, book: Book, interval: str, mode: Mode) -> Plan:
        """Return the plan of a prompt that asks about the book as it is now; raise HookError when a facts hook or an input fails."""
        view = view_of(book, interval) if self.hooks.decide else None
        own = NO_FACTS if view is None else self.hooks.facts(view)
        return self._plan(book, interval, mode, own, view)

    def _plan(self, book: Book, interval: str, mode: Mode, own: Mapping[str, float], view: BookView | None) -> Plan:
        prefix, boundary = self._current(book, interval)
        frozen = book.epochs.frozen(interval)
        vision = book.current_vision(interval)
        values = facts(book, interval, vision, own)
        rows = self._layout.since(book, interval, frozen, book.epochs.entered(interval), boundary)
        tables = "" if self.tables is None else self.tables.text(book, interval, self._tokens_in)
        tail = tail_text(book, interval, frozen, vision, values)
        tail = self._asked_in_flash(tail, interval, tables) if mode == "flash" else f"{tail}{tables}{self._question(mode)}"
        bars = book.bars[interval]
        return Plan(prefix, rows, tail, mode, vision, {"close": bars.close[-1], **bars.features, **values}, view)

    async def build(self, plan: Plan) -> Prompt:
        """Return the prompt of `plan`."""
        prefix = plan.prefix
        async with prefix.using:
            filled = prefix.filled
            if filled:
                tail = self._tail(plan)
            else:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._fill(prefix, plan.lines))
                    # Redis has been asked after one turn of the loop; its answer takes as long as what can be tokenized meanwhile.
                    await asyncio.sleep(0)
                    tail = self._tail(plan)
                    if prefix.lines:
                        self._grow(prefix, plan.lines)
            self._grow(prefix, plan.lines)
            ids = prefix.followed_by(tail, len(plan.lines))
        if not filled:
            self._evict()
        prompt = Prompt(ids, prefix.epoch, len(ids) - len(tail), prefix, self.prompt_version)
        asyncio.get_running_loop().call_later(_HASHED_AFTER_S, lambda: prompt.hash)
        return prompt

    def text(self, plan: Plan) -> tuple[str, str]:
        """Return the prompt as (system, user) text, for engines that take no ids."""
        texts = [block.piece for block in plan.prefix.blocks if isinstance(block.piece, str)]
        user = texts[texts.index(self.rules) + 1 :]
        middle = [piece for piece in self.template.middle if isinstance(piece, str)]
        return self.rules, "".join([*user[len(middle) :], *plan.lines, plan.tail])

    def repair(self, asked: TokenIds, answer: str, mode: Mode) -> TokenIds:
        """Return the ids of a second turn that asks again after `answer` to the prompt `asked`, which could not be used."""
        return self._next_turn(asked, answer[:2000], wording.REPAIR[self._settings.answer_form], mode)

    def rationale(self, prompt: Prompt, label: str) -> TokenIds:
        """Return the ids of a second turn that asks why `label` was answered, in mode `flash`."""
        return self._next_turn(prompt.ids, label, wording.RATIONALE_QUESTION, "fast")

    def after_thought(self, asked: TokenIds, thought: str) -> tuple[TokenIds, int]:
        """Return the ids of the prompt `asked` in mode `deep` with `thought` and its end, and how many `thought` has.

        Without a thought they are those of mode `fast`, as the model was trained not to think.
        """
        if not thought.strip():
            deep, fast = (np.concatenate(self._encoder.encode_all(self.template.tail(mode))) for mode in ("deep", "fast"))
            return np.concatenate([asked[: asked.size - deep.size], fast]), 0
        ids = self._tokenizer.encode(f"{thought.strip()}\n")
        return np.concatenate([asked, ids, self._thought_end]), ids.size

    @cached_property
    def _thought_end(self) -> TokenIds:
        try:
            end = self._tokenizer.special_id(THOUGHT_END)
        except ValueError:
            return self._tokenizer.encode(f"{THOUGHT_END}\n\n")
        return np.concatenate([np.array([end], dtype=np.int32), self._tokenizer.encode_after(THOUGHT_END, "\n\n")])

    def upcoming(self, book: Book, interval: str) -> Upcoming:
        """Return the prefix that the next epoch will start with, as far as it is known now."""
        bars, epochs = book.bars[interval], book.epochs.boundaries(interval)
        last_ms = bars.last_close_ms
        index = epochs.index(last_ms)
        until_ms = epochs.start_ms(index + 1)
        left = book.calendar.slots_between(interval, last_ms, until_ms)
        total = book.calendar.slots_between(interval, epochs.start_ms(index), until_ms)
        if left:
            count = max(0, self._settings.window_bars - left)
            blocks, fixed = self._chained(self._layout.next_base(book, interval, book.epochs.entered(interval), count))
        else:
            blocks, fixed = self._next_base(book, interval)
        return Upcoming(blocks, fixed, left, max(1, total))

    def opening(self, book: Book, interval: str, open_ms: int) -> tuple[list[Block], int] | None:
        """Return the base of the prefix of the first bar after `open_ms`, when no bar comes before it, and its fixed blocks.

        None when that bar belongs to the current epoch, whose prefix `current_ids` returns.
        """
        epochs = book.epochs.boundaries(interval)
        first_ms = book.calendar.next_closes(interval, open_ms, 1)[0]
        return None if epochs.index(first_ms) == epochs.index(book.bars[interval].last_close_ms) else self._next_base(book, interval)

    def current(self, book: Book, interval: str) -> tuple[list[Block], int]:
        """Return the blocks of the current epoch's base, and how many of them come before its pages."""
        prefix = self._current(book, interval)[0]
        return prefix.blocks, prefix.fixed

    async def current_ids(self, book: Book, interval: str) -> TokenIds:
        """Return the ids of the current prefix as far as it has grown: its base, and the lines since the boundary."""
        prompt = await self.build(self._plan(book, interval, "fast", NO_FACTS, None))
        return prompt.ids[: prompt.prefix_tokens]

    async def ids_of(self, blocks: list[Block]) -> TokenIds:
        """Return the ids of `blocks`, which a prompt starts with, from the caches where they have them."""
        whole = len(blocks) - len(blocks) % RUN_BLOCKS
        return (await self._cache.resolve(blocks, list(runs(0, whole, RUN_BLOCKS)))).ids

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
        return sum(prefix.tokens for prefix in self._prefixes.values())

    def _asked_in_flash(self, tail: str, interval: str, tables: str) -> str:
        return short_tail(tail, self._settings.strategy, daily=shows_dates(interval), question=f"{tables}{question(self.labels)}")

    def _question(self, mode: Mode) -> str:
        # A thought says why by itself.
        explained = mode == "fast" and self._settings.rationale == "short"
        return (wording.EXPLAINED_QUESTION if explained else wording.QUESTION)[self._settings.answer_form]

    def _next_turn(self, asked: TokenIds, answer: str, question: str, mode: Mode) -> TokenIds:
        pieces = (answer, *self.template.next_user, question, *self.template.tail(mode))
        return np.concatenate([asked, *self._encoder.encode_all(pieces)])

    def _current(self, book: Book, interval: str) -> tuple[EpochPrefix, int]:
        bars, epochs = book.bars[interval], book.epochs.boundaries(interval)
        index = epochs.index(bars.last_close_ms)
        base_end = bars.first_after(epochs.start_ms(index))
        key = (book.instrument.symbol, interval)
        found = self._prefixes.get(key)
        if found is None or found.index != index or found.version != book.epochs.version:
            base = self._layout.base(book, interval, book.epochs.frozen(interval), book.epochs.entered(interval), base_end)
            blocks, fixed = self._chained(base)
            found = self._prefixes[key] = EpochPrefix(blocks, fixed, book.epochs.version, index)
        self._prefixes.move_to_end(key)
        return found, base_end

    def _next_base(self, book: Book, interval: str) -> tuple[list[Block], int]:
        """Return the base of the next epoch, when no bar of the current one is to come any more."""
        base = self._layout.base(book, interval, book.epochs.entered(interval), book.epochs.now(interval), len(book.bars[interval]))
        return self._chained(base)

    def _chained(self, base: Base) -> tuple[list[Block], int]:
        """Return the blocks of a base, and how many of them come before its pages."""
        return chain(self._root, base.pieces), base.fixed

    def _tail(self, plan: Plan) -> TokenIds:
        return np.concatenate([self._encoder.encode(piece) for piece in (plan.tail, *self.template.tail(plan.mode))])

    async def _fill(self, prefix: EpochPrefix, lines: list[str]) -> None:
        """Fetch the base's ids, and those of the lines that come after it when none has its own yet, a page of them as one value."""
        since = [] if prefix.lines else chain(prefix.tip, lines[: len(lines) - len(lines) % PAGE_BARS])
        base = len(prefix.blocks)
        found = await self._cache.resolve([*prefix.blocks, *since], [*prefix.runs, *runs(base, base + len(since), PAGE_BARS)])
        at = sum(found.lengths[:base])
        prefix.fill(found.ids[:at])
        for block, length in zip(since, found.lengths[base:], strict=True):
            prefix.append(block.key, found.ids[at : at + length])
            at += length

    def _grow(self, prefix: EpochPrefix, lines: list[str]) -> None:
        """Add the ids of those of `lines` that have none yet; the store is given a page of them at a time."""
        for block in chain(prefix.tip, lines[prefix.lines :]):
            ids = self._encoder.encode(block.piece)
            prefix.append(block.key, ids)
            prefix.unsaved.append(ids)
            if len(prefix.unsaved) == PAGE_BARS:
                self._store.put({block.key: Run.of(prefix.unsaved)})
                prefix.unsaved = []

    def _evict(self) -> None:
        """Evict the ids of the least recently used bases beyond the memory for them."""
        total = sum(prefix.nbytes for prefix in self._prefixes.values())
        for prefix in list(self._prefixes.values())[:-1]:
            if total <= self._base_bytes:
                break
            if not prefix.using.locked():
                total -= prefix.nbytes
                prefix.release()
