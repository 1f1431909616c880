"""The folded state of one symbol: a series for each interval, higher intervals built from lower ones, splits and dividends. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from schemas import Candle, Instrument, MarketFeatures, Restatement, RunMode, interval_ms
from services.core.calendar import SessionCalendar
from services.core.folding.bar_fold import Fold
from services.core.restatement import restates
from services.market.aggregate import Aggregator, HigherBar, Ohlcv, check_multiple
from services.market.own_features import FeatureFunction
from services.market.series import Folded, Series

Plan = Mapping[str, Sequence[str]]
"""Higher intervals to build from each lower one."""


class Taken(NamedTuple):
    """How a candle was folded: `fold` is None when it was filtered; `detail` says why it was refused."""

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
    """One symbol. The same candles, instrument, splits and dividends give the same features on any worker."""

    def __init__(self, instrument: Instrument, restatements: Sequence[Restatement], plan: Plan, own: FeatureFunction | None = None) -> None:
        """Start empty; raise CalendarError when the instrument's calendar is not known.

        `restatements` may grow later; each series is restated when the first bar after an event comes. `plan` must have passed
        `check_plan`; `own` computes features of the user's.
        """
        self._own = own
        self._instrument = instrument
        self._calendar = SessionCalendar.of(instrument.calendar)
        self._plan = plan
        self._series: dict[str, Series] = {}
        self._higher: dict[str, list[Aggregator]] = {}
        self._built: set[str] = set()
        self._run_mode = RunMode.SHADOW
        self._restatements = restatements
        self._applied: dict[str, set[tuple[str, int]]] = {}
        """By interval, the kind and effective time of the events that its series was restated for."""

    def take(self, candle: Candle, offset: int) -> Taken:
        """Fold the candle of the record at `offset`; return its features, then those of the higher bars that it changes."""
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
        self._apply_restatements(interval, series, bar.ts_open_ms)
        folded = series.fold(bar, offset) if closed else series.form(bar)
        if folded.features is not None:
            out.append(self._features(interval, bar, folded.features, closed=closed))
        if folded.newest is not None:
            # Decisions rest on the newest bar's features, and the corrected bar enters into them.
            newest, features = folded.newest
            out.append(self._features(interval, series.as_published(newest, newest.ts_open_ms), features, closed=True))
        if closed and folded.fold is Fold.FOLDED:
            for aggregator in self._higher[interval]:
                for higher in aggregator.add(series.as_published(bar, _opened_ms(aggregator, bar))):
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
        return aggregator.revise(bounds, (series.as_published(part, bounds[0]) for part in parts))

    def _begin(self, interval: str) -> Series:
        highers = self._plan.get(interval, ())
        # Two of the longest higher bar's windows, so that a correction finds all the lower bars it needs.
        keep = 2 * max((interval_ms(higher) // interval_ms(interval) for higher in highers), default=0)
        self._higher[interval] = [Aggregator(interval, higher, self._calendar) for higher in highers]
        self._built.update(highers)
        self._applied[interval] = set()
        series = self._series[interval] = Series(keep, self._own)
        return series

    def _apply_restatements(self, interval: str, series: Series, ts_open_ms: int) -> None:
        applied = self._applied[interval]
        for event in self._restatements:
            key = (event.event, event.effective_ms)
            if event.effective_ms <= ts_open_ms and key not in applied and restates(event, self._instrument):
                applied.add(key)
                series.restate(event)

    def _features(self, interval: str, bar: Ohlcv, features: dict[str, float], *, closed: bool) -> MarketFeatures:
        return MarketFeatures(
            schema_version=1,
            run_mode=self._run_mode,
            symbol=self._instrument.symbol,
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


def _opened_ms(aggregator: Aggregator, bar: Ohlcv) -> int:
    """Return when the higher bar opened that `bar` is part of, or the bar itself when it is part of none."""
    bounds = aggregator.bounds(bar.ts_open_ms)
    return bar.ts_open_ms if bounds is None else bounds[0]
