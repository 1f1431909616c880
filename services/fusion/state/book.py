"""The book: one symbol's folded state. What a prompt shows of it is a pure function of the records folded, in log order.

Market and vision records are folded apart from each other, so that nothing depends on how the two topics interleave.
"""

from __future__ import annotations

from typing import Final

from schemas import Instrument, InstrumentEvent, MarketFeatures, OffsetRef, Restatement, VisionFeatures, interval_ms
from services.core.bus import Record
from services.core.calendar import SessionCalendar
from services.core.folding.bar_fold import DUPLICATE, FOLDED, REVISED, Fold
from services.core.fusion_settings import FusionSettings
from services.core.restatement import restates
from services.fusion.state.bars import Bars
from services.fusion.state.epochs import Epochs
from services.fusion.state.vision_windows import CurrentVision, VisionWindows

_ATR_SLACK: Final = 1.01
"""Rounding, and bars older than those held, which an average of 14 bars still weighs a little."""


def kept_bars(settings: FusionSettings, interval: str) -> int:
    """Return how many closed bars of `interval` a book holds: what any prompt may show, and a margin.

    A slower bar is shown as of up to two epochs of a faster trigger interval back.
    """
    own = settings.window_bars if interval in settings.trigger_interval_set else settings.slow_window(interval) + 2
    return own + _bars_in(settings, interval, epochs=2)


def bars_to_rebuild(settings: FusionSettings, interval: str) -> int:
    """Return from how many closed bars of `interval` a book can be built anew that shows what one built from all of them would.

    It must hold all that a revision may change for as long as what followed from a revision is to be seen: three epochs.
    """
    return kept_bars(settings, interval) + _bars_in(settings, interval, epochs=3)


def _bars_in(settings: FusionSettings, interval: str, epochs: int) -> int:
    """Return how many bars of `interval` close in so many epochs of any trigger interval that is as fast or faster."""
    length = interval_ms(interval)
    faster = [other_ms for other in settings.trigger_interval_set if (other_ms := interval_ms(other)) <= length]
    return -(-epochs * settings.epoch_slots * max(faster, default=length) // length)


def offset_ref(record: Record, ts_event_ms: int) -> OffsetRef:
    """Return a reference to a record that speaks of the time `ts_event_ms` in the market."""
    return OffsetRef(
        topic=record.topic, partition=record.partition, offset=record.offset, ts_ms=record.timestamp_ms, ts_event_ms=ts_event_ms
    )


class Book:
    """The folded state of one symbol."""

    def __init__(
        self, instrument: Instrument, settings: FusionSettings, calendar: SessionCalendar, partition: int = 0, since_ms: int = 0
    ) -> None:
        """`calendar` is the instrument's; the first record came from `partition` with the timestamp `since_ms`."""
        self.instrument = instrument
        self.key = instrument.symbol.encode()
        """The key of the symbol's records."""
        self.partition = partition
        self.since_ms = since_ms
        self.calendar = calendar
        self.decimals = instrument.price_decimals
        self.strategy = settings.strategy
        self.day_zero_ms = settings.day_zero_ms
        """Where prompts count days from; None where they show dates."""
        columns, units = self.strategy.feature_columns, self.strategy.units
        self.bars = {interval: Bars(kept_bars(settings, interval), columns, units) for interval in settings.intervals}
        self._vision = VisionWindows()
        self.last_market: tuple[Record, int] | None = None
        """The last market record that was folded, and its event time; a reference is made of it only when a message needs one."""
        self.last_vision: tuple[Record, int] | None = None
        """The same of vision records."""
        self._settings = settings
        self.epochs = Epochs(instrument.symbol, settings, self.bars)
        self._closed = 0
        self._restatements: list[Restatement] = []
        self.ahead: tuple[Restatement, ...] = ()
        """Splits and dividends before whose first bar the book still is."""
        self.applied: list[Restatement] = []
        """Splits and dividends that the book is restated for, in the order in which they were applied."""

    @property
    def market_ref(self) -> OffsetRef | None:
        """Return the last market record that was folded, None before there is one."""
        return offset_ref(*self.last_market) if self.last_market is not None else None

    @property
    def vision_ref(self) -> OffsetRef | None:
        """Return the last vision record that was folded, None before there is one."""
        return offset_ref(*self.last_vision) if self.last_vision is not None else None

    def fold_market(self, bar: MarketFeatures) -> Fold:
        """Fold a bar of one of the book's intervals; return what became of it."""
        return self.fold_closed(bar) if bar.closed else self.form(bar)

    def fold_closed(self, bar: MarketFeatures) -> Fold:
        """Fold a closed bar."""
        bars = self.bars[bar.interval]
        fold = bars.place(bar)
        if fold is FOLDED:
            open_ms, last_ms = bar.ts_open_ms, bars.last_close_ms
            gap = self.calendar.slots_between(bar.interval, last_ms, open_ms) if last_ms and open_ms != last_ms else 0
            if self.ahead:
                self.reach(open_ms)
            self.epochs.enter(bar)
            self._closed += 1
            bars.append(bar, gap, self._closed)
        elif fold is REVISED:
            bars.revise(bar)
            self.epochs.start_anew()
        elif fold is DUPLICATE:
            bars.note_revision(bar)
        return fold

    def form(self, bar: MarketFeatures) -> Fold:
        """Fold a bar that is still open."""
        fold = self.bars[bar.interval].form(bar)
        if fold is FOLDED and self.ahead:
            self.reach(bar.ts_open_ms)
        return fold

    def reach(self, ts_open_ms: int) -> None:
        """Put everything on the scale of a bar that opens at `ts_open_ms`."""
        reached = [event for event in self.ahead if event.effective_ms <= ts_open_ms]
        self.ahead = tuple(event for event in self.ahead if event.effective_ms > ts_open_ms)
        for event in reached:
            self._restate(event)

    def fold_vision(self, features: VisionFeatures) -> Fold:
        """Fold vision features."""
        return self._vision.fold(features)

    def add_restatement(self, event: Restatement) -> bool:
        """Apply a split or dividend, now if a later bar is there, else with the first one; return whether bars changed."""
        if not restates(event, self.instrument) or event in self._restatements:
            return False
        self._restatements.append(event)
        if any(bars.opens_at_or_after(event.effective_ms) for bars in self.bars.values()):
            return self._restate(event)
        self.ahead = (*self.ahead, event)
        return False

    def expects_split(self, ts_open_ms: int) -> bool:
        """Return whether the first bar on the scale after a known split opens at `ts_open_ms` or before."""
        return any(isinstance(event, InstrumentEvent) and event.effective_ms <= ts_open_ms for event in self.ahead)

    def awaits_vision(self, interval: str) -> bool:
        """Return whether the vision features of the last closed bar are still to come, as far as the last few bars tell."""
        return self.current_vision(interval).state != "fresh" and self._vision.expected(interval, self.bars[interval])

    def current_vision(self, interval: str) -> CurrentVision:
        """Return the newest vision features of a window that ends with or before the last closed bar."""
        return self._vision.current(interval, self.bars[interval], self._settings.max_vision_age_bars)

    def suspected_split(self, interval: str, limit: float, accepted_ms: int) -> str | None:
        """Return what in the bars of `interval` and the slower ones looks like a split that nobody told of, None when nothing does.

        A close may be at most `limit` times the one before it, and `atr`, an average of ranges, at most the largest of them: above
        that it was computed across a jump that is gone from the bars. An operator accepted the jumps of bars that opened before
        `accepted_ms`.
        """
        for name, bars in self.bars.items():
            if interval_ms(name) < interval_ms(interval):
                continue
            jumped_ms = bars.jump_since(accepted_ms, limit)
            if jumped_ms is not None:
                return f"the {name} close of {jumped_ms} is more than {limit} times the one before it, or the inverse"
        bars = self.bars[interval]
        atr, largest = bars.features.get("atr", 0.0), bars.longest_range()
        if largest and atr > _ATR_SLACK * largest and (not bars.ts_open or bars.ts_open[-1] >= accepted_ms):
            return f"atr is {atr:g}, above the largest range of the bars that it averages, {largest:g}"
        return None

    def _restate(self, event: Restatement) -> bool:
        """Restate all intervals for `event` at once, so that no prompt shows two scales; return whether that changed a bar."""
        self.applied.append(event)
        changed = sum([bars.restate(event) for bars in self.bars.values()])
        if changed:
            self.epochs.start_anew()
        return changed > 0
