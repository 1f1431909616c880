"""Rebuilds one symbol's book from its records, to each as-of in turn, and asks the worker's own question of it there.

Market and vision records fold apart from each other, so that two offsets say all of what a prompt rests on. What stands on the
tables' topics has no offset in an as-of, and need not have been known at once: an instrument that was published anew is used from a
worker's next start on, and a split that was told after bars beyond it rescales a running worker's book at that moment, and a later
worker's at its first bar beyond it. A `ReferenceHistory` is one of these courses; a prompt is right when any of them gives its hash.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from itertools import groupby
from typing import Final, NamedTuple

from pydantic import ValidationError

from schemas import Instrument, InstrumentEvent, MarketFeatures, OffsetRef
from services.core.bus import Record
from services.core.clock import VirtualClock
from services.core.settings import Settings
from services.core.tokenizer import Tokenizer
from services.fusion.prompt.builder import Plan, Prompt, PromptBuilder, fingerprint
from services.fusion.prompt.store import PrefixStore
from services.fusion.state.book import Book, bars_to_rebuild
from services.fusion.state.books import Books
from services.fusion.state.intake import Intake, NullSink
from services.fusion.state.triggers import TriggerPolicy
from services.replay.audit_trail import AuditEntry
from services.replay.log_source import ReferenceData, SymbolLog, VersionedRecord

_NULL_SINK: Final = NullSink()


class ReferenceHistory(NamedTuple):
    """A symbol's instrument, the splits that were known from the start, and those that were told on the way."""

    instrument: Instrument
    known: tuple[InstrumentEvent, ...]
    late: tuple[VersionedRecord, ...] = ()


class RebuiltPrompt(NamedTuple):
    """A decision's plan and prompt as its book gives them again."""

    plan: Plan
    prompt: Prompt
    market_ref: OffsetRef | None
    vision_ref: OffsetRef | None
    short: bool
    """The book holds too few bars to be sure that older ones would show nothing."""


def reference_histories(tables: ReferenceData, symbol: str, market: Sequence[Record]) -> list[ReferenceHistory]:
    """Return the courses that the tables may have taken for a symbol, the likeliest first; none when its instrument is not known."""
    told = tables.splits.get(symbol, [])
    splits = tuple(sorted((one.split for one in told if one.split is not None), key=lambda split: split.effective_ms))
    late = tuple(one for one in told if one.split is not None and _bar_beyond(market, one.split, one.at_ms))
    early = tuple(split for split in splits if split not in [one.split for one in late])
    instruments = list(dict.fromkeys(one.instrument for one in reversed(tables.instruments.get(symbol, ())) if one.instrument is not None))
    found = []
    for instrument in instruments:
        found.append(ReferenceHistory(instrument, splits))
        if late:
            found.append(ReferenceHistory(instrument, early, late))
    return found


def _bar_beyond(market: Iterable[Record], split: InstrumentEvent, told_ms: int) -> bool:
    """Return whether a bar that closed after a split was appended before the split was told."""
    for record in market:
        if record.timestamp_ms >= told_ms:
            return False
        try:
            bar = MarketFeatures.decode(record.value or b"")
        except ValidationError:
            continue
        if bar.closed and bar.ts_close_ms > split.effective_ms:
            return True
    return False


class PromptRebuilder:
    """Builds prompts with the worker's own parts, under settings that are the worker's."""

    def __init__(self, settings: Settings, tokenizer: Tokenizer) -> None:
        """Raise ValueError when the tokenizer lacks a token of the chat template."""
        template = settings.engine.chat_template
        self.settings = settings
        self.tokenizer = tokenizer
        self._clock = VirtualClock()
        store = PrefixStore(None, settings.redis, self._clock, fingerprint(tokenizer, template))
        self.prompts = PromptBuilder(settings.fusion, tokenizer, template, store, settings.redis.local_bytes)

    async def rebuild(
        self, log: SymbolLog, telling: ReferenceHistory, entries: Sequence[AuditEntry]
    ) -> AsyncIterator[tuple[AuditEntry, RebuiltPrompt]]:
        """Yield each entry with its prompt, more than once where a split came between two records; all are of the log's symbol.

        Entries whose as-of the records do not reach, or on which the book has nothing to show, are left out.
        """
        waiting = sorted(entries, key=_as_of)
        while waiting:
            left: list[AuditEntry] = []
            async for found in self._in_order(log, telling, waiting, left):
                yield found
            waiting = left

    async def _in_order(
        self, log: SymbolLog, telling: ReferenceHistory, entries: Sequence[AuditEntry], left: list[AuditEntry]
    ) -> AsyncIterator[tuple[AuditEntry, RebuiltPrompt]]:
        """Rebuild once from the log's start, to every as-of that only grows in both offsets; put the others into `left`."""
        symbol = telling.instrument.symbol
        self.prompts.forget(symbol)
        fold = _Fold(self.settings, self._clock, telling)
        market, vision = _Feed(log.market), _Feed(log.vision)
        for (market_offset, vision_offset), group in groupby(entries, key=_as_of):
            if vision_offset < vision.last_offset:
                left.extend(group)
                continue
            for record in market.up_to(market_offset):
                fold.split_before(record.timestamp_ms)
                fold.take(record)
            for record in vision.up_to(vision_offset):
                fold.take(record)
            if market.last_offset != market_offset:
                continue
            asked = list(group)
            async for found in self._ask(fold.book(symbol), asked):
                yield found
            if fold.split_before(market.next_ms):
                async for found in self._ask(fold.book(symbol), asked):
                    yield found

    async def _ask(self, book: Book | None, entries: Iterable[AuditEntry]) -> AsyncIterator[tuple[AuditEntry, RebuiltPrompt]]:
        for entry in entries:
            record = entry.record
            bars = None if book is None else book.bars.get(record.interval)
            if book is None or not bars or record.interval not in self.settings.fusion.trigger_interval_set:
                continue
            plan = self.prompts.plan(book, record.interval, record.mode)
            short = any(held.total < bars_to_rebuild(self.settings.fusion, interval) for interval, held in book.bars.items())
            yield entry, RebuiltPrompt(plan, await self.prompts.build(plan), book.market_ref, book.vision_ref, short)


class _Fold:
    """A worker's books of one symbol."""

    def __init__(self, settings: Settings, clock: VirtualClock, telling: ReferenceHistory) -> None:
        self._telling = telling
        self._known = list(telling.known)
        self._late = list(telling.late)
        self._books = Books(settings.fusion, self)
        self._intake = Intake(settings, clock, self._books, TriggerPolicy(settings.fusion))

    def take(self, record: Record) -> None:
        self._intake.take(record, _NULL_SINK)

    def book(self, symbol: str) -> Book | None:
        return self._books.get(symbol)

    def split_before(self, at_ms: int) -> bool:
        """Tell the book of the splits that were told before a time; return whether that changed it."""
        changed = False
        while self._late and self._late[0].at_ms <= at_ms:
            split = self._late.pop(0).split
            if split is not None:
                self._known.append(split)
                self._known.sort(key=lambda one: one.effective_ms)
                book = self._books.get(split.symbol)
                changed |= book is not None and book.add_split(split)
        return changed

    # What `Books` looks things up in.

    def get(self, symbol: str) -> Instrument | None:
        return self._telling.instrument if symbol == self._telling.instrument.symbol else None

    def splits(self, symbol: str) -> list[InstrumentEvent]:
        del symbol
        return self._known

    def calendars(self) -> set[str]:
        return {self._telling.instrument.calendar}


class _Feed:
    """Hands records out up to an offset, once."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = records
        self._at = 0
        self.last_offset = -1

    def up_to(self, offset: int) -> Iterable[Record]:
        while self._at < len(self._records) and self._records[self._at].offset <= offset:
            record = self._records[self._at]
            self._at += 1
            self.last_offset = record.offset
            yield record

    @property
    def next_ms(self) -> int:
        """Return when the next record was appended, the end of time when there is none."""
        return self._records[self._at].timestamp_ms if self._at < len(self._records) else 1 << 62


def _as_of(entry: AuditEntry) -> tuple[int, int]:
    as_of = entry.record.as_of
    if as_of is None:
        return -1, -1
    return as_of.market.offset, -1 if as_of.vision is None else as_of.vision.offset
