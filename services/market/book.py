"""A symbol's folded state: a series an interval, the higher intervals built from them, and the splits that restate both. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from schemas import Candle, Instrument, InstrumentEvent, MarketFeatures, RunMode, interval_ms
from services.core.calendar import SessionCalendar
from services.core.folding.bar_fold import Fold
from services.market.aggregate import Aggregator, HigherBar, Ohlcv, check_multiple, scaled
from services.market.series import Folded, Series

Plan = Mapping[str, Sequence[str]]
"""Higher intervals to build from each lower one."""


class Taken(NamedTuple):
    """What became of a candle: `fold` is None when it was filtered; `detail` says why when it was refused."""

    fold: Fold | None
    detail: str
    out: list[MarketFeatures]


def check_plan(plan: Plan) -> None:
    """Raise ValueError when an interval cannot be built as planned, or would be built from two others."""
    built: dict[str, str] = {}
    for lower, highers in plan.items():
        for higher in highers:
            check_multiple(lower, higher)
            if higher in built:
                raise ValueError(f"{higher} bars would be built from {built[higher]} and from {lower} bars; name {higher} once")
            built[higher] = lower


class Book:
    """One symbol. Feeding it the same candles, instrument and splits gives the same features, on any worker."""

    def __init__(self, instrument: Instrument, splits: Sequence[InstrumentEvent], plan: Plan) -> None:
        """Start empty; raise CalendarError when the instrument's calendar is not known.

        `splits` may grow later; each series is restated when its first bar in the new units comes. `plan` must have passed
        `check_plan`.
        """
        self._symbol = instrument.symbol
        self._calendar = SessionCalendar.of(instrument.calendar)
        self._plan = plan
        self._series: dict[str, Series] = {}
        self._higher: dict[str, list[Aggregator]] = {}
        self._built: set[str] = set()
        self._run_mode = RunMode.SHADOW
        self._splits = splits if instrument.price_adjustment == "none" else ()
        self._applied: dict[str, dict[int, float]] = {}
        """By interval, the ratio of each split that its series was restated for, by effective time."""

    def take(self, candle: Candle, offset: int) -> Taken:
        """Fold a candle that came from the record at `offset`; give its features, then those of the higher bars it changed."""
        if candle.interval in self._built:
            return Taken(None, f"{candle.interval} bars of this symbol are built from lower ones", [])
        bar = Ohlcv(
            candle.ts_open_ms,
            candle.ts_close_ms,
            candle.open,
            candle.high,
            candle.low,
            candle.close,
            candle.volume,
            candle.revision,
        )
        out: list[MarketFeatures] = []
        self._run_mode = candle.run_mode
        folded = self._put(candle.interval, bar, closed=candle.closed, offset=offset, out=out)
        return Taken(folded.fold, folded.detail, out)

    def needed_from(self) -> int | None:
        """Return the offset from which reading the log again restores this book, None when it is empty."""
        needed = [offset for series in self._series.values() if (offset := series.needed_from()) is not None]
        return min(needed, default=None)

    def _put(self, interval: str, bar: Ohlcv, *, closed: bool, offset: int, out: list[MarketFeatures]) -> Folded:
        if (series := self._series.get(interval)) is None:
            series = self._begin(interval)
        self._apply_splits(interval, series, bar.ts_open_ms)
        folded = series.fold(bar, offset) if closed else series.form(bar)
        if folded.features is not None:
            out.append(self._features(interval, bar, folded.features, closed=closed))
        if folded.newest is not None:
            # Decisions rest on the newest bar's features, and the corrected bar enters into them.
            newest, features = folded.newest
            newest = self._in_units_of(interval, newest, (newest.ts_open_ms, newest.ts_close_ms))
            out.append(self._features(interval, newest, features, closed=True))
        if closed and folded.fold is Fold.FOLDED:
            for aggregator in self._higher[interval]:
                for higher in aggregator.add(self._in_units_of(interval, bar, aggregator.bounds(bar.ts_open_ms))):
                    first = series.offset_of(higher.bar.ts_open_ms, offset)
                    self._put(aggregator.interval, higher.bar, closed=higher.closed, offset=first, out=out)
        elif folded.fold is Fold.REVISED:
            for aggregator in self._higher[interval]:
                if (corrected := self._corrected(aggregator, interval, bar)) is not None:
                    self._put(aggregator.interval, corrected.bar, closed=corrected.closed, offset=offset, out=out)
        return folded

    def _corrected(self, aggregator: Aggregator, interval: str, bar: Ohlcv) -> HigherBar | None:
        """Return the higher bar that a corrected lower one changes; None when it has none, or is older than what is kept."""
        series, bounds = self._series[interval], aggregator.bounds(bar.ts_open_ms)
        if bounds is None or not series.holds_since(bounds[0]):
            return None
        # A bar between sessions lies within a week's bounds and is no part of it.
        parts = (part for part in series.between(*bounds) if aggregator.bounds(part.ts_open_ms) == bounds)
        return aggregator.revise(bounds, (self._in_units_of(interval, part, bounds) for part in parts))

    def _in_units_of(self, interval: str, bar: Ohlcv, bounds: tuple[int, int] | None) -> Ohlcv:
        """Return `bar`, in today's units, in those of the higher bar's open, which by contract says what units a bar is in."""
        for effective_ms, ratio in self._applied[interval].items():
            if bounds is not None and effective_ms > bounds[0]:
                bar = scaled(bar, 1 / ratio)
        return bar

    def _begin(self, interval: str) -> Series:
        highers = self._plan.get(interval, ())
        # Two of the longest higher bar's windows, so that a correction finds all the lower bars it needs.
        keep = 2 * max((interval_ms(higher) // interval_ms(interval) for higher in highers), default=0)
        self._higher[interval] = [Aggregator(interval, higher, self._calendar) for higher in highers]
        self._built.update(highers)
        self._applied[interval] = {}
        series = self._series[interval] = Series(keep)
        return series

    def _apply_splits(self, interval: str, series: Series, ts_open_ms: int) -> None:
        applied = self._applied[interval]
        for split in self._splits:
            if split.effective_ms <= ts_open_ms and split.effective_ms not in applied:
                applied[split.effective_ms] = split.ratio
                series.rescale(split.effective_ms, split.ratio)

    def _features(self, interval: str, bar: Ohlcv, features: dict[str, float], *, closed: bool) -> MarketFeatures:
        return MarketFeatures(
            schema_version=1,
            run_mode=self._run_mode,
            symbol=self._symbol,
            interval=interval,
            ts_open_ms=bar.ts_open_ms,
            ts_close_ms=bar.ts_close_ms,
            open=bar.open,
            high=bar.high,
            low=bar.low,
            close=bar.close,
            volume=bar.volume,
            closed=closed,
            revision=bar.revision,
            features=features,
        )
