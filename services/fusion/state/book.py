"""The book: one symbol's folded state. What a prompt shows of it is a pure function of the records folded, in log order.

Market and vision records are folded apart from each other, so that nothing depends on how the two topics interleave.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import NamedTuple

from schemas import Instrument, InstrumentEvent, MarketFeatures, OffsetRef, Vision, VisionFeatures, interval_ms
from services.core.bus import Record
from services.core.calendar import SessionCalendar
from services.core.folding.bar_fold import FOLDED, REVISED, Fold
from services.core.settings import FusionSettings
from services.fusion.state.bars import Bars
from services.fusion.state.epochs import Epochs

_KEPT_VISION = 8


def kept_bars(settings: FusionSettings, interval: str) -> int:
    """Return how many closed bars of `interval` a book holds: what any prompt may show, and a margin.

    A slower bar is shown as of up to two epochs of a faster trigger interval back.
    """
    own = settings.window_bars if interval in settings.trigger_interval_set else settings.slow_window_bars + 2
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


class SlowBars(NamedTuple):
    """One slower interval as a prompt freezes it: the bars that had closed by then, and the one that was open."""

    interval: str
    last_close_ms: int
    """`ts_close_ms` of the newest closed bar, 0 when there is none."""
    forming: MarketFeatures | None


@dataclass(slots=True)
class _Frozen:
    """What is frozen for the epochs of one fast interval."""

    epoch: int
    """The epoch of its last closed bar."""
    current: tuple[SlowBars, ...]
    """For this epoch: the state at the boundary before."""
    entered: tuple[SlowBars, ...]
    """The state when this epoch was entered: for the next one."""


@dataclass(frozen=True, slots=True)
class CurrentVision:
    """The vision features that a decision uses: `features` is None with `absent`; `age_ms` is event time to the last close."""

    state: Vision
    features: VisionFeatures | None
    age_ms: int | None


def offset_ref(record: Record, ts_event_ms: int) -> OffsetRef:
    """Return a reference to a record that speaks of the time `ts_event_ms` in the market."""
    return OffsetRef(
        topic=record.topic, partition=record.partition, offset=record.offset, ts_ms=record.timestamp_ms, ts_event_ms=ts_event_ms
    )


class Book:
    """The folded state of one symbol."""

    def __init__(self, instrument: Instrument, settings: FusionSettings, calendar: SessionCalendar) -> None:
        """`calendar` is the instrument's."""
        self.instrument = instrument
        self.calendar = calendar
        self.decimals = len(instrument.price_increment.partition(".")[2])
        self.bars = {interval: Bars(kept_bars(settings, interval)) for interval in settings.intervals}
        self.vision: dict[str, list[VisionFeatures]] = {}
        self.last_market: tuple[Record, int] | None = None
        """The last market record that was folded, and its event time; a reference is made of it only when a message needs one."""
        self.last_vision: tuple[Record, int] | None = None
        """The same of vision records."""
        self.version = 0
        """Grows whenever something already shown in a prompt changes; local to this process."""
        self._settings = settings
        self._epochs = {i: Epochs(instrument.symbol, i, settings.epoch_slots) for i in settings.trigger_interval_set}
        self._frozen: dict[str, _Frozen] = {}
        self._splits: list[InstrumentEvent] = []

    @property
    def market_ref(self) -> OffsetRef | None:
        """Return the last market record that was folded, None before there is one."""
        return offset_ref(*self.last_market) if self.last_market is not None else None

    @property
    def vision_ref(self) -> OffsetRef | None:
        """Return the last vision record that was folded, None before there is one."""
        return offset_ref(*self.last_vision) if self.last_vision is not None else None

    def epochs(self, interval: str) -> Epochs:
        """Return the epoch arithmetic of a trigger interval."""
        return self._epochs[interval]

    def fold_market(self, bar: MarketFeatures) -> Fold:
        """Fold a bar of one of the book's intervals; return what became of it."""
        return self.fold_closed(bar) if bar.closed else self.bars[bar.interval].form(bar)

    def fold_closed(self, bar: MarketFeatures) -> Fold:
        """Fold a closed bar."""
        bars = self.bars[bar.interval]
        fold = bars.place(bar)
        if fold is FOLDED:
            self._close(bars, bar)
        elif fold is REVISED:
            bars.revise(bar)
            self._rewritten()
        return fold

    def fold_vision(self, features: VisionFeatures) -> Fold:
        """Fold vision features: the last few windows of an interval are kept, a window seen again is replaced."""
        kept = self.vision.setdefault(features.interval, [])
        ends = [seen.window_end_ms for seen in kept]
        index = bisect_left(ends, features.window_end_ms)
        if index < len(kept) and ends[index] == features.window_end_ms:
            if kept[index] == features:
                return Fold.DUPLICATE
            kept[index] = features
            return Fold.FOLDED
        if index == 0 and len(kept) == _KEPT_VISION:
            return Fold.LATE
        kept.insert(index, features)
        del kept[:-_KEPT_VISION]
        return Fold.FOLDED

    def add_split(self, event: InstrumentEvent) -> bool:
        """Take note of a split and rescale what lies before it; return True when bars were rescaled."""
        if self.instrument.price_adjustment != "none" or event in self._splits:
            return False
        self._splits.append(event)
        return any(bars.last_close_ms > event.effective_ms for bars in self.bars.values()) and self._rescale(event)

    def current_vision(self, interval: str) -> CurrentVision:
        """Return the newest vision features of a window that ends with or before the last closed bar."""
        last_close = self.bars[interval].last_close_ms
        kept = self.vision.get(interval, ())
        index = bisect_right([seen.window_end_ms for seen in kept], last_close) - 1
        if index < 0:
            return CurrentVision("absent", None, None)
        age_ms = last_close - kept[index].window_end_ms
        if age_ms == 0:
            return CurrentVision("fresh", kept[index], 0)
        bars_since = len(self.bars[interval]) - self.bars[interval].first_after(kept[index].window_end_ms)
        if bars_since > self._settings.max_vision_age_bars:
            return CurrentVision("absent", None, None)
        return CurrentVision("stale", kept[index], age_ms)

    def frozen_slow(self, interval: str) -> tuple[SlowBars, ...]:
        """Return the slower bars of `interval`'s current epoch, the slowest interval first."""
        frozen = self._frozen.get(interval)
        return frozen.current if frozen else self._slow_state(interval)

    def next_slow(self, interval: str) -> tuple[SlowBars, ...]:
        """Return the slower bars of `interval`'s next epoch, whenever that begins."""
        frozen = self._frozen.get(interval)
        return frozen.entered if frozen else self._slow_state(interval)

    def _close(self, bars: Bars, bar: MarketFeatures) -> None:
        last = bars.last_close_ms
        gap = self._missing(bar, last) if last else 0
        for split in self._splits:
            if bar.ts_close_ms > split.effective_ms:
                self._rescale(split)
        if bar.interval in self._epochs:
            self._enter(bar)
        bars.append(bar, gap)

    def _missing(self, bar: MarketFeatures, last_ms: int) -> int:
        """Return how many scheduled bars close after the last one did and before `bar` opens."""
        if bar.ts_open_ms == last_ms:
            return 0
        return self.calendar.slots_between(bar.interval, last_ms, bar.ts_open_ms)

    def _enter(self, bar: MarketFeatures) -> None:
        """Freeze the slower bars when `bar` is the first of a new epoch.

        An epoch shows them as they were when the one before it that had bars began, so that its prefix is known that much ahead
        and can be sent ahead, over a closed session too; the fast bars reach back further, so nothing is missing from the prompt.
        """
        epoch = self._epochs[bar.interval].index(bar.ts_close_ms)
        frozen = self._frozen.get(bar.interval)
        if frozen is None:
            now = self._slow_state(bar.interval)
            self._frozen[bar.interval] = _Frozen(epoch, now, now)
        elif epoch > frozen.epoch:
            now = self._slow_state(bar.interval)
            frozen.current, frozen.entered = frozen.entered, now
            frozen.epoch = epoch

    def _rescale(self, split: InstrumentEvent) -> bool:
        """Put all intervals on the scale after `split` at once, so that no prompt shows two; return whether that changed a bar."""
        changed = sum([bars.rescale(split.effective_ms, split.ratio) for bars in self.bars.values()])
        if changed:
            self._rewritten()
        return changed > 0

    def _rewritten(self) -> None:
        """Start every epoch's frozen part anew from what is known now: what it showed has changed."""
        self.version += 1
        for interval, frozen in self._frozen.items():
            frozen.current = frozen.entered = self._slow_state(interval)

    def _slow_state(self, interval: str) -> tuple[SlowBars, ...]:
        intervals = self._settings.intervals
        slower = intervals[intervals.index(interval) + 1 :]
        return tuple(SlowBars(name, self.bars[name].last_close_ms, self.bars[name].forming) for name in reversed(slower))
