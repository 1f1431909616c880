"""Folds records into books: a record is decoded, checked, folded, and turned into triggers. Synchronous: nothing here waits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple, Protocol

from pydantic import ValidationError

from schemas import CancelReason, DeadLetterReason, InstrumentEvent, MarketFeatures, Restatement, Topic, VisionFeatures, topic_name
from services.core import metrics
from services.core.bus import Record
from services.core.clock import Clock
from services.core.decode import Refused, accepted_modes, decoder, misaddressed
from services.core.folding.bar_fold import DUPLICATE, FOLDED, REFUSALS, REVISED, Fold
from services.core.settings import Settings
from services.fusion.state.bars import Bars
from services.fusion.state.book import Book, offset_ref
from services.fusion.state.books import Books
from services.fusion.state.early import EarlyRecords
from services.fusion.state.epochs import slot_of
from services.fusion.state.triggers import LaneKey, Observation, Trigger, TriggerIds, TriggerPolicy
from services.fusion.state.view import view_of

Taken = Literal["folded", "duplicate", "filtered", "awaits_tables"]
_NotFolded = tuple[Record, Taken | Refused]


class Sink(Protocol):
    """Receives what folding a record causes; a rebuild passes one that ignores everything."""

    takes_triggers: bool
    """False for a rebuild: the policy is evaluated all the same, but no trigger is made, which takes longer than the fold."""

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

    takes_triggers = False

    def trigger(self, trigger: Trigger, wait_until_ms: int, record: Record) -> None:
        """Ignore the trigger: its outcome is known."""

    def vision_arrived(self, symbol: str, interval: str, window_end_ms: int) -> bool:
        """Ignore the features: no trigger waits for them."""
        del symbol, interval, window_end_ms
        return False

    def bars_changed(self, symbol: str, reason: CancelReason) -> None:
        """Ignore the change: its cancels were sent."""


class _Admitted(NamedTuple):
    """A market record that may be folded, and the book and bars that it goes to."""

    bar: MarketFeatures
    book: Book
    bars: Bars


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
        self._early = EarlyRecords()
        self._modes, self._max_bytes = accepted_modes(settings.run_mode), settings.bus.max_record_bytes
        self._decode_market = decoder(MarketFeatures, self._modes, self._max_bytes)
        self._decode_vision = decoder(VisionFeatures, self._modes, self._max_bytes)
        self._max_skew_ms = fusion.max_skew_ms
        self._lowest_ratio, self._highest_ratio = 1 / fusion.max_jump, fusion.max_jump
        self._symbols = frozenset(fusion.symbols)
        self._intervals = frozenset(fusion.intervals)
        self._triggering = fusion.trigger_interval_set
        self.market_topic = topic_name(Topic.MARKET_FEATURES, settings.run_mode)
        self.vision_topic = topic_name(Topic.VISION_FEATURES, settings.run_mode)
        self.topics = (self.market_topic, self.vision_topic)
        """The topics that books are folded from, partition by partition; what is read as a table is in `services/fusion/inputs`."""

    def start_over(self, partition: int) -> frozenset[str]:
        """Drop all that was folded of `partition`; return its symbols."""
        symbols = self._books.drop(partition)
        for symbol in symbols:
            self._policy.forget(symbol)
        self._early.drop(partition)
        return symbols

    def take(self, record: Record, sink: Sink, *, may_wait: bool = False) -> Taken | Refused:
        """Fold one record as `fold` does; return what became of it."""
        return next((taken for _, taken in self.fold(record.topic, (record,), sink, may_wait=may_wait)), "folded")

    def fold(self, topic: str, records: Iterable[Record], sink: Sink, *, may_wait: bool = False) -> Iterator[_NotFolded]:
        """Fold records of one partition of `topic`, in order; yield each that is not folded, with what became of it.

        With `may_wait` a record whose fold depends on what instruments and splits are known is left alone, and yielded with
        `awaits_tables`: read the tables on to where they end now, and fold it again without.
        """
        folds = self._fold_market if topic == self.market_topic else self._fold_vision
        return folds(records, sink, may_wait=may_wait)

    def add_restatement(self, event: Restatement, sink: Sink) -> None:
        """Take in a split or dividend that was published while the worker runs."""
        book = self._books.get(event.symbol)
        if book is not None:
            applied, version = len(book.applied), book.epochs.version
            book.add_restatement(event)
            self._note_changes(book, applied, version, CancelReason.SPLIT, sink)

    def _fold_market(self, records: Iterable[Record], sink: Sink, *, may_wait: bool) -> Iterator[_NotFolded]:
        # The hot path: every market record passes here, and most update a forming bar. What is read more than once a record is a local,
        # and a message's fields come from its __dict__, at half the time of its attributes. What needs a new book, another scale, or
        # words for its refusal goes through `_admit`.
        validate, books = MarketFeatures.__pydantic_validator__.validate_json, self._books.by_symbol
        modes, max_bytes, max_skew_ms = self._modes, self._max_bytes, self._max_skew_ms
        lowest, highest, uses_forming = self._lowest_ratio, self._highest_ratio, self._policy.uses_forming
        for record in records:
            value = record.value
            decoded: MarketFeatures | None = None
            try:
                decoded = bar = validate(value if value is not None and len(value) <= max_bytes else b"")
                fields = bar.__dict__
                book = books[fields["symbol"]]
                bars = book.bars[fields["interval"]]
            except (ValidationError, KeyError):
                ordinary = False
            else:
                open_ms, closed = fields["ts_open_ms"], fields["closed"]
                ordinary = (
                    book.key == record.key
                    and book.partition == record.partition
                    and fields["run_mode"] in modes
                    and not bar.__pydantic_extra__
                    and (fields["ts_close_ms"] if closed else open_ms) - record.timestamp_ms <= max_skew_ms
                    and open_ms >= bars.restated_before_ms
                    and (not may_wait or not (closes := bars.close) or lowest <= fields["close"] / closes[-1] <= highest)
                )
            if not ordinary:
                found = self._admit(record, decoded, may_wait=may_wait)
                if not isinstance(found, _Admitted):
                    yield record, found
                    continue
                bar, book, bars = found
                open_ms, closed = bar.ts_open_ms, bar.closed
            if closed:
                fold = self._closed(book, bar, record, sink)
            else:
                fold = bars.form(bar, value)
                if fold is FOLDED:
                    last_ms = bars.last_close_ms
                    book.last_market = (record, last_ms if last_ms > open_ms else open_ms)  # noqa: FURB136 - a call takes twice as long
                    if uses_forming or book.ahead:
                        self._formed(book, bar, record, sink)
            if fold is not FOLDED and fold is not REVISED:
                yield record, "duplicate" if fold is DUPLICATE else _refused(fold, book, bar)

    def _admit(self, record: Record, decoded: MarketFeatures | None, *, may_wait: bool) -> _Admitted | Taken | Refused:
        """Return the bar of a market record and where it is folded, making its book if it has none, or what else becomes of the record."""
        bar = self._decode_market(record) if decoded is None else misaddressed(decoded, record, self._modes) or decoded
        if isinstance(bar, Refused):
            return bar
        if bar.__pydantic_extra__:
            metrics.UNKNOWN_FIELDS.inc(len(bar.__pydantic_extra__))
        book = self._book(bar.symbol, bar.interval, record, may_wait=may_wait)
        if not isinstance(book, Book):
            return book
        bars = book.bars[bar.interval]
        ahead_ms = (bar.ts_close_ms if bar.closed else bar.ts_open_ms) - record.timestamp_ms
        if ahead_ms > self._max_skew_ms:
            return Refused(
                DeadLetterReason.FUTURE, f"the bar is {ahead_ms} ms ahead of its record; folding it would make the bars before it late"
            )
        if may_wait and self._looks_like_a_split(book, bars, bar):
            return "awaits_tables"
        return _Admitted(bar, book, bars)

    def _formed(self, book: Book, bar: MarketFeatures, record: Record, sink: Sink) -> None:
        """Apply the splits and dividends that a forming bar reaches, and show it to a policy that triggers on moves."""
        if book.ahead:
            applied, version = len(book.applied), book.epochs.version
            book.reach(bar.ts_open_ms)
            self._note_changes(book, applied, version, CancelReason.SPLIT, sink)
        if self._policy.uses_forming and bar.interval in self._triggering:
            self._on_bar(book, bar, record, sink)

    def _closed(self, book: Book, bar: MarketFeatures, record: Record, sink: Sink) -> Fold:
        applied, version = len(book.applied), book.epochs.version
        fold = book.fold_closed(bar)
        if fold is FOLDED or fold is REVISED:
            book.last_market = (record, bar.ts_close_ms)
            if fold is REVISED or len(book.applied) != applied or book.epochs.version != version:
                self._note_changes(book, applied, version, CancelReason.REVISED if fold is REVISED else CancelReason.SPLIT, sink)
            asks = self._policy.uses_closed and (sink.takes_triggers or self._policy.remembers)
            if fold is FOLDED and asks and bar.interval in self._triggering:
                self._on_bar(book, bar, record, sink)
        return fold

    def _note_changes(self, book: Book, applied: int, version: int, reason: CancelReason, sink: Sink) -> None:
        """Pass on what a fold changed beside its own bar, `applied` events and `version` being those before it."""
        symbol = book.instrument.symbol
        events = book.applied[applied:]
        for event in events:
            if isinstance(event, InstrumentEvent):
                self._policy.rescale(symbol, event.effective_ms, event.ratio)
        if events and not any(isinstance(event, InstrumentEvent) for event in events):
            reason = CancelReason.REVISED  # a dividend
        if book.epochs.version != version:
            sink.bars_changed(symbol, reason)

    def _looks_like_a_split(self, book: Book, bars: Bars, bar: MarketFeatures) -> bool:
        """Return whether a split may have been published for this bar's jump that is not known here yet."""
        if bar.ts_close_ms <= bars.last_close_ms or not bars.total or book.instrument.price_adjustment != "none":
            return False
        change = bar.close / bars.close[-1] / bars.on_scale_at(bar.ts_open_ms)
        return not self._lowest_ratio <= change <= self._highest_ratio and not book.expects_split(bar.ts_open_ms)

    def _on_bar(self, book: Book, bar: MarketFeatures, record: Record, sink: Sink) -> None:
        scale = book.bars[bar.interval].on_scale_at(bar.ts_open_ms)
        atr = bar.features.get("atr")
        seen = Observation(
            bar.symbol,
            bar.interval,
            bar.ts_close_ms,
            bar.closed,
            slot_of(bar.ts_close_ms, bar.interval),
            bar.close / scale,
            (bar.high - bar.low) / scale,
            atr if atr is None else atr / scale,
            bar.ts_open_ms,
        )
        made = self._policy.on_market(seen, lambda: view_of(book, bar.interval))
        for kind, mode in made if sink.takes_triggers else ():
            waits = bar.closed and self._fusion.vision_wait_ms and book.awaits_vision(bar.interval)
            trigger = self._trigger(kind, LaneKey(bar.symbol, bar.interval, mode), record, bar.ts_close_ms, book)
            sink.trigger(trigger, record.timestamp_ms + self._fusion.vision_wait_ms if waits else 0, record)

    def _fold_vision(self, records: Iterable[Record], sink: Sink, *, may_wait: bool) -> Iterator[_NotFolded]:
        for record in records:
            taken = self._vision(record, sink, may_wait=may_wait)
            if taken != "folded":
                yield record, taken

    def _vision(self, record: Record, sink: Sink, *, may_wait: bool) -> Taken | Refused:
        features = self._decode_vision(record)
        if isinstance(features, Refused):
            return features
        if features.model_extra:
            metrics.UNKNOWN_FIELDS.inc(len(features.model_extra))
        book = self._book(features.symbol, features.interval, record, may_wait=may_wait)
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
            lane = LaneKey(features.symbol, features.interval, self._policy.mode)
            made = self._policy.on_vision(lane, features.window_end_ms, bars.close[-1], bars.ts_open[-1], completes_wait=completes)
            for kind, _ in made if sink.takes_triggers else ():
                sink.trigger(self._trigger(kind, lane, record, features.window_end_ms, book), 0, record)
        return "folded"

    def _book(self, symbol: str, interval: str, record: Record, *, may_wait: bool) -> Book | Refused | Taken:
        if interval not in self._intervals or (self._symbols and symbol not in self._symbols):
            return "filtered"
        held = self._books.get(symbol)
        created = self._books.get_or_create(symbol, record)
        if created is held:
            return held
        if isinstance(created, Book):
            if held is not None:
                self._policy.forget(symbol)  # the symbol's partition turned out to be another one
            for early in self._early.pop(record.partition, symbol):
                self.take(early, NullSink())
        elif created.reason is DeadLetterReason.UNKNOWN_INSTRUMENT:
            if may_wait:
                return "awaits_tables"
            self._early.add(symbol, record)
        return created

    def _trigger(self, kind: str, lane: LaneKey, record: Record, ts_event_ms: int, book: Book) -> Trigger:
        return Trigger(
            self._ids.of(record.topic, record.partition, record.offset, kind),
            kind,
            lane,
            offset_ref(record, ts_event_ms),
            book.bars[lane.interval].last_close_ms,
            self._clock.now_ms(),
        )


def _refused(fold: Fold, book: Book, bar: MarketFeatures) -> Refused:
    last_ms = book.bars[bar.interval].last_close_ms
    return Refused(
        REFUSALS[fold],
        f"{bar.symbol} {bar.interval} bar that closes at {bar.ts_close_ms}, revision {bar.revision}: the book's last closed at {last_ms}",
    )
