"""Folds records into books: a record is decoded, checked, folded, and turned into triggers. Synchronous: nothing here waits."""

from __future__ import annotations

from typing import Literal, Protocol

from schemas import CancelReason, DeadLetterReason, MarketFeatures, Topic, VisionFeatures, topic_name
from services.core import metrics
from services.core.bus import Record
from services.core.clock import Clock
from services.core.decode import Refused, accepted_modes, decoder
from services.core.folding.bar_fold import DUPLICATE, FOLDED, REFUSALS, REVISED, Fold
from services.core.settings import Settings
from services.fusion.state.book import Book, offset_ref
from services.fusion.state.books import Books
from services.fusion.state.epochs import slot_of
from services.fusion.state.triggers import LaneKey, Observation, Trigger, TriggerIds, TriggerPolicy

Taken = Literal["folded", "duplicate", "filtered"]


class Sink(Protocol):
    """Receives what folding a record causes; a rebuild passes one that ignores everything."""

    def trigger(self, trigger: Trigger, wait_until_ms: int, record: Record) -> None:
        """Take a trigger that waits for vision features until `wait_until_ms` (0: not at all)."""
        ...

    def vision_arrived(self, symbol: str, interval: str, window_end_ms: int) -> bool:
        """Return True when a trigger was waiting for the vision features of this window."""
        ...

    def bars_changed(self, symbol: str, reason: CancelReason) -> None:
        """Receive that bars which decisions rested on have changed: they were revised, or rescaled by a split."""
        ...


class NullSink:
    """A sink that ignores everything: a rebuild asks nothing and cancels nothing."""

    def trigger(self, trigger: Trigger, wait_until_ms: int, record: Record) -> None:
        """Ignore the trigger: its outcome is known."""

    def vision_arrived(self, symbol: str, interval: str, window_end_ms: int) -> bool:
        """Ignore the features: no trigger waits for them."""
        del symbol, interval, window_end_ms
        return False

    def bars_changed(self, symbol: str, reason: CancelReason) -> None:
        """Ignore the change: its cancels were sent."""


class Intake:
    """Folds records of both input topics into books."""

    def __init__(self, settings: Settings, clock: Clock, books: Books, policy: TriggerPolicy) -> None:
        """Fold into `books`, with triggers as `policy` has them."""
        fusion = settings.fusion
        self._fusion = fusion
        self._clock = clock
        self._books = books
        self._policy = policy
        self._ids = TriggerIds(fusion.log_id)
        modes, max_bytes = accepted_modes(settings.run_mode), settings.bus.max_record_bytes
        self._decode_market = decoder(MarketFeatures, modes, max_bytes)
        self._decode_vision = decoder(VisionFeatures, modes, max_bytes)
        self._max_skew_ms = fusion.max_skew_ms
        self._book_of = books.by_symbol.get
        self._symbols = frozenset(fusion.symbols)
        self._intervals = frozenset(fusion.intervals)
        self._triggering = fusion.trigger_interval_set
        self.market_topic = topic_name(Topic.MARKET_FEATURES, settings.run_mode)
        self.vision_topic = topic_name(Topic.VISION_FEATURES, settings.run_mode)

    def start_over(self, partition: int) -> None:
        """Forget all that was folded of `partition`."""
        for symbol in self._books.drop(partition):
            self._policy.forget(symbol)

    def take(self, record: Record, sink: Sink) -> Taken | Refused:
        """Fold one record; return what became of it."""
        if record.topic == self.market_topic:
            return self._market(record, sink)
        return self._vision(record, sink)

    def _market(self, record: Record, sink: Sink) -> Taken | Refused:
        bar = self._decode_market(record)
        if isinstance(bar, Refused):
            return bar
        if bar.__pydantic_extra__:
            metrics.UNKNOWN_FIELDS.inc(len(bar.__pydantic_extra__))
        interval = bar.interval
        book = self._book_of(bar.symbol)
        if book is None or interval not in book.bars:
            made = self._book(bar.symbol, interval, record.partition)
            if not isinstance(made, Book):
                return made
            book = made
        ahead_ms = (bar.ts_close_ms if bar.closed else bar.ts_open_ms) - record.timestamp_ms
        if ahead_ms > self._max_skew_ms:
            return Refused(
                DeadLetterReason.FUTURE, f"the bar is {ahead_ms} ms ahead of its record; folding it would make the bars before it late"
            )
        fold = self._closed(book, bar, record, sink) if bar.closed else self._forming(book, bar, record, sink)
        if fold is FOLDED or fold is REVISED:
            return "folded"
        if fold is DUPLICATE:
            return "duplicate"
        return Refused(
            REFUSALS[fold],
            f"{bar.symbol} {bar.interval} bar that closes at {bar.ts_close_ms}, revision {bar.revision}: the book's last closed at "
            f"{book.bars[bar.interval].last_close_ms}",
        )

    def _forming(self, book: Book, bar: MarketFeatures, record: Record, sink: Sink) -> Fold:
        bars = book.bars[bar.interval]
        fold = bars.form(bar)
        if fold is FOLDED:
            book.last_market = (record, max(bars.last_close_ms, bar.ts_open_ms))
            if self._policy.uses_forming and bar.interval in self._triggering:
                self._on_bar(book, bar, record, sink)
        return fold

    def _closed(self, book: Book, bar: MarketFeatures, record: Record, sink: Sink) -> Fold:
        version = book.version
        fold = book.fold_closed(bar)
        if fold is FOLDED or fold is REVISED:
            book.last_market = (record, bar.ts_close_ms)
            if book.version != version:
                sink.bars_changed(bar.symbol, CancelReason.REVISED if fold is REVISED else CancelReason.SPLIT)
            if fold is FOLDED and bar.interval in self._triggering:
                self._on_bar(book, bar, record, sink)
        return fold

    def _on_bar(self, book: Book, bar: MarketFeatures, record: Record, sink: Sink) -> None:
        seen = Observation(
            bar.symbol,
            bar.interval,
            bar.ts_close_ms,
            bar.closed,
            slot_of(bar.ts_close_ms, bar.interval),
            bar.close,
            bar.high - bar.low,
            bar.features.get("atr"),
        )
        for kind, mode in self._policy.on_market(seen):
            waits = bar.closed and self._fusion.vision_wait_ms and book.current_vision(bar.interval).state != "fresh"
            trigger = self._trigger(kind, LaneKey(bar.symbol, bar.interval, mode), record, bar.ts_close_ms, book)
            sink.trigger(trigger, record.timestamp_ms + self._fusion.vision_wait_ms if waits else 0, record)

    def _vision(self, record: Record, sink: Sink) -> Taken | Refused:
        features = self._decode_vision(record)
        if isinstance(features, Refused):
            return features
        if features.model_extra:
            metrics.UNKNOWN_FIELDS.inc(len(features.model_extra))
        book = self._book(features.symbol, features.interval, record.partition)
        if not isinstance(book, Book):
            return book
        ahead_ms = features.window_end_ms - record.timestamp_ms
        if ahead_ms > self._fusion.max_skew_ms:
            return Refused(DeadLetterReason.FUTURE, f"the window ends {ahead_ms} ms after its record")
        fold = book.fold_vision(features)
        if fold is Fold.DUPLICATE:
            return "duplicate"
        if fold is Fold.LATE:
            return Refused(DeadLetterReason.LATE, f"{features.symbol} {features.interval} window that ended at {features.window_end_ms}")
        book.last_vision = (record, features.window_end_ms)
        completes = sink.vision_arrived(features.symbol, features.interval, features.window_end_ms)
        bars = book.bars[features.interval]
        if len(bars) and book.last_market is not None:
            made = self._policy.on_vision(
                features.symbol, features.interval, features.window_end_ms, bars.close[-1], completes_wait=completes
            )
            for kind, mode in made:
                sink.trigger(
                    self._trigger(kind, LaneKey(features.symbol, features.interval, mode), record, features.window_end_ms, book), 0, record
                )
        return "folded"

    def _book(self, symbol: str, interval: str, partition: int) -> Book | Refused | Taken:
        if interval not in self._intervals or (self._symbols and symbol not in self._symbols):
            return "filtered"
        return self._books.get(symbol) or self._books.get_or_create(symbol, partition)

    def _trigger(self, kind: str, lane: LaneKey, record: Record, ts_event_ms: int, book: Book) -> Trigger:
        return Trigger(
            self._ids.of(record.topic, record.partition, record.offset, kind),
            kind,
            lane,
            offset_ref(record, ts_event_ms),
            book.bars[lane.interval].last_close_ms,
            self._clock.now_ms(),
        )
