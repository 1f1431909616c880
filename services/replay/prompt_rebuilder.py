"""Rebuilds one symbol's book from its records up to each as-of in turn, and builds the worker's own prompt there.

Market and vision records fold independently, and so do the inputs that are read as tables (notes, positions): one offset of each defines
what a prompt rests on. Instruments and splits have no offset in an
as-of, and a worker may learn of them late: a new version of an instrument is used from the worker's next start on, and a split that is
published after bars beyond it rescales a running worker's book at that moment, but a later worker's at its first bar beyond it. A
`ReferenceHistory` is one of these possibilities; a prompt is correct when any of them gives its hash.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Final, NamedTuple

from pydantic import ValidationError

from schemas import AsOf, Instrument, MarketFeatures, OffsetRef, Restatement
from services.core.bus import Record
from services.core.clock import VirtualClock
from services.core.settings import Settings
from services.core.tokenizer import Tokenizer
from services.fusion.inputs.tables import Tables
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
    """A symbol's instrument, the splits known from the start, and those that became known later."""

    instrument: Instrument
    known: tuple[Restatement, ...]
    late: tuple[VersionedRecord, ...] = ()
    tables: Sequence[Record] = ()
    """Records of inputs that are read as tables, of all symbols."""


class RebuiltPrompt(NamedTuple):
    """The plan and prompt of a decision, rebuilt from its book."""

    plan: Plan
    prompt: Prompt
    market_ref: OffsetRef | None
    vision_ref: OffsetRef | None
    short: bool
    """Whether the book holds so few bars that older ones might change the prompt."""
    table_refs: Mapping[str, OffsetRef] | None = None


def reference_histories(reference: ReferenceData, symbol: str, market: Sequence[Record]) -> list[ReferenceHistory]:
    """Return the possible histories of a symbol's reference data, the likeliest first; none without an instrument."""
    versions = reference.restatements.get(symbol, [])
    events = tuple(sorted((one.restatement for one in versions if one.restatement is not None), key=lambda event: event.effective_ms))
    late = tuple(one for one in versions if one.restatement is not None and _bar_beyond(market, one.restatement, one.appended_ms))
    early = tuple(event for event in events if event not in [one.restatement for one in late])
    instruments = list(
        dict.fromkeys(one.instrument for one in reversed(reference.instruments.get(symbol, ())) if one.instrument is not None)
    )
    found, tables = [], tuple(reference.tables.values())
    for instrument in instruments:
        found.append(ReferenceHistory(instrument, events, tables=tables))
        if late:
            found.append(ReferenceHistory(instrument, early, late, tables))
    return found


def _bar_beyond(market: Iterable[Record], event: Restatement, published_ms: int) -> bool:
    """Return whether a bar that closed after a split or dividend was appended before that event was published."""
    for record in market:
        if record.timestamp_ms >= published_ms:
            return False
        try:
            bar = MarketFeatures.decode(record.value or b"")
        except ValidationError:
            continue
        if bar.closed and bar.ts_close_ms > event.effective_ms:
            return True
    return False


class PromptRebuilder:
    """Builds prompts with the worker's own code and the worker's settings."""

    def __init__(self, settings: Settings, tokenizer: Tokenizer) -> None:
        """Raise ValueError when the tokenizer lacks a token of the chat template."""
        template = settings.engine.chat_template
        self.settings = settings
        self.tokenizer = tokenizer
        self._clock = VirtualClock()
        store = PrefixStore(None, settings.redis, self._clock, fingerprint(tokenizer, template, settings.fusion.strategy))
        self.prompts = PromptBuilder(settings.fusion, tokenizer, template, store, settings.redis.local_bytes)

    async def rebuild(
        self, log: SymbolLog, history: ReferenceHistory, entries: Sequence[AuditEntry]
    ) -> AsyncIterator[tuple[AuditEntry, RebuiltPrompt]]:
        """Yield each entry with its prompt, more than once where a split was published between two records; all are of one symbol.

        Entries whose as-of the records do not reach, or whose book is empty, are left out.
        """
        waiting = sorted(entries, key=_as_of)
        while waiting:
            left: list[AuditEntry] = []
            async for found in self._in_order(log, history, waiting, left):
                yield found
            waiting = left

    async def _in_order(
        self, log: SymbolLog, history: ReferenceHistory, entries: Sequence[AuditEntry], left: list[AuditEntry]
    ) -> AsyncIterator[tuple[AuditEntry, RebuiltPrompt]]:
        """Fold the log once, up to every as-of that grows in both offsets; add the others to `left`."""
        symbol = history.instrument.symbol
        self.prompts.forget(symbol)
        fold = _Fold(self.settings, self._clock, history)
        market, vision = _Feed(log.market), _Feed(log.vision)
        tables = _TablesAt(self.settings, history.tables)
        for (market_offset, vision_offset, *_), group in groupby(entries, key=_as_of):
            if vision_offset < vision.last_offset:
                left.extend(group)
                continue
            for record in market.up_to(market_offset):
                fold.restate_before(record.timestamp_ms)
                fold.take(record)
            for record in vision.up_to(vision_offset):
                fold.take(record)
            if market.last_offset != market_offset:
                continue
            asked = list(group)
            self.prompts.tables = tables.at(asked[0].record.as_of)
            async for found in self._ask(fold.book(symbol), asked):
                yield found
            if fold.restate_before(market.next_ms):
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
            refs = None if self.prompts.tables is None else self.prompts.tables.as_of(record.symbol)
            yield entry, RebuiltPrompt(plan, await self.prompts.build(plan), book.market_ref, book.vision_ref, short, refs)


class _Fold:
    """A worker's book of one symbol."""

    def __init__(self, settings: Settings, clock: VirtualClock, history: ReferenceHistory) -> None:
        self._history = history
        self._known = list(history.known)
        self._late = list(history.late)
        self._books = Books(settings.fusion, self)
        self._intake = Intake(settings, clock, self._books, TriggerPolicy(settings.fusion))

    def take(self, record: Record) -> None:
        self._intake.take(record, _NULL_SINK)

    def book(self, symbol: str) -> Book | None:
        return self._books.get(symbol)

    def restate_before(self, at_ms: int) -> bool:
        """Give the book the splits and dividends published before a time; return whether they changed it."""
        changed = False
        while self._late and self._late[0].appended_ms <= at_ms:
            event = self._late.pop(0).restatement
            if event is not None:
                self._known.append(event)
                self._known.sort(key=lambda one: one.effective_ms)
                book = self._books.get(event.symbol)
                changed |= book is not None and book.add_restatement(event)
        return changed

    # The lookup that `Books` needs.

    def get(self, symbol: str) -> Instrument | None:
        return self._history.instrument if symbol == self._history.instrument.symbol else None

    def restatements(self, symbol: str) -> list[Restatement]:
        del symbol
        return self._known

    def calendars(self) -> set[str]:
        return {self._history.instrument.calendar}


class _TablesAt:
    """The inputs that are read as tables as of one decision after another."""

    def __init__(self, settings: Settings, records: Sequence[Record]) -> None:
        self._settings = settings
        self._records = records
        self._tables = Tables(settings)
        self._feeds: dict[str, _Feed] = {}
        self._start_over()

    def at(self, as_of: AsOf | None) -> Tables:
        """Return the tables up to the offsets of `as_of`; of an input that it does not name, nothing."""
        refs = {} if as_of is None else as_of.tables or {}
        offsets = {ref.topic: ref.offset for ref in refs.values()}
        if any(feed.last_offset > offsets.get(topic, -1) for topic, feed in self._feeds.items()):
            self._start_over()
        for topic, feed in self._feeds.items():
            for record in feed.up_to(offsets.get(topic, -1)):
                self._tables.take(record)
        return self._tables

    def _start_over(self) -> None:
        self._tables = Tables(self._settings)
        topics = dict.fromkeys(record.topic for record in self._records)
        self._feeds = {topic: _Feed([record for record in self._records if record.topic == topic]) for topic in topics}


class _Feed:
    """Yields records up to an offset, each once."""

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
        """Return when the next record was appended; a time beyond any when there is none."""
        return self._records[self._at].timestamp_ms if self._at < len(self._records) else 1 << 62


def _as_of(entry: AuditEntry) -> tuple[int, int, tuple[tuple[str, int], ...]]:
    as_of = entry.record.as_of
    if as_of is None:
        return -1, -1, ()
    tables = tuple(sorted((name, ref.offset) for name, ref in (as_of.tables or {}).items()))
    return as_of.market.offset, -1 if as_of.vision is None else as_of.vision.offset, tables
