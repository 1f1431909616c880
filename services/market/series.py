"""The closed bars of one symbol and interval in packed arrays, with their indicators. Pure; no clock.

Each bar keeps the offset of the record that it came from, so that the service knows from where a rebuild has to read.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

import numpy as np

from schemas import Restatement
from services.core.folding.bar_fold import Fold
from services.core.restatement import Factors, factors
from services.market.aggregate import Ohlcv, restated
from services.market.indicators import RECURSIVE, WARM_UP_BARS, Bar, Indicators
from services.market.own_features import LOOKBACK_BARS, BarArrays, FeatureFunction

_SLACK: Final = 64
KEPT_BARS: Final = 2 * WARM_UP_BARS
"""Enough that each bar of the last warm-up has another before it: its features can then be computed again when it is corrected."""


class Folded(NamedTuple):
    """How a bar was folded: its features, or why it was refused."""

    fold: Fold
    detail: str = ""
    features: dict[str, float] | None = None
    newest: tuple[Ohlcv, dict[str, float]] | None = None
    """The newest closed bar and its features after an older one was corrected."""


class Series:
    """Closed bars with strictly increasing `ts_close_ms`, oldest first, and the forming bar after them."""

    def __init__(self, keep: int = KEPT_BARS, own: FeatureFunction | None = None) -> None:
        """Hold the last `keep` bars (at least KEPT_BARS), and a few more between trimmings; `own` computes features of the user's."""
        self._keep = max(keep, KEPT_BARS)
        self._own = own
        self._indicators = Indicators()
        self._forming: Ohlcv | None = None
        self._times = (array("q"), array("q"))
        self._values = tuple(array("d") for _ in range(5))
        self._revisions = array("q")
        self._offsets = array("q")
        self._factors: dict[int, Factors] = {}
        """By effective time, the factors that bars which opened before it are restated by."""
        self.trimmed = False

    def __len__(self) -> int:
        """Return how many closed bars are held."""
        return len(self._revisions)

    def fold(self, bar: Ohlcv, offset: int) -> Folded:
        """Fold the closed bar of the record at `offset`.

        The bar after the last is folded. One that is held already is a duplicate when its values are the same, revises the bar
        when they differ and its revision is higher, else conflicts. Older ones are late.
        """
        if not len(self) or bar.ts_close_ms > self._times[1][-1]:
            if len(self) and bar.ts_open_ms < self._times[1][-1]:
                return Folded(Fold.CONFLICT, f"opens at {bar.ts_open_ms}, before the last bar's close {self._times[1][-1]}")
            return self._append(bar, offset)
        index = bisect_left(self._times[1], bar.ts_close_ms)
        held = self._at(index)
        if held.ts_close_ms != bar.ts_close_ms:
            return Folded(Fold.LATE, f"closed at {bar.ts_close_ms}; the last bar closed at {self._times[1][-1]}")
        given = self._restated(bar)
        if _same(held, given):
            return Folded(Fold.DUPLICATE)
        if bar.revision <= held.revision:
            return Folded(
                Fold.CONFLICT,
                f"other values than the bar of {bar.ts_close_ms} had, and revision {bar.revision} is not above {held.revision}",
            )
        return self._revise(index, given)

    def form(self, bar: Ohlcv) -> Folded:
        """Fold a forming bar. It is late when its slot or a later one has closed, or a later bar is forming."""
        if len(self) and bar.ts_close_ms <= self._times[1][-1]:
            return Folded(Fold.LATE, f"forming until {bar.ts_close_ms}; the last bar closed at {self._times[1][-1]}")
        if self._forming is not None:
            if bar.ts_close_ms < self._forming.ts_close_ms:
                return Folded(Fold.LATE, f"forming until {bar.ts_close_ms}; one until {self._forming.ts_close_ms} forms already")
            if _same(bar, self._forming) and bar.revision == self._forming.revision:
                return Folded(Fold.DUPLICATE)
        self._forming = bar
        return Folded(Fold.FOLDED, features={**self._indicators.peek(_numbers(bar)), **self._own_features(len(self), bar)})

    def restate(self, event: Restatement) -> None:
        """Restate the bars that opened before `event` took effect, so that they compare with later ones."""
        effective_ms = event.effective_ms
        count = bisect_left(self._times[0], effective_ms)
        since = math.prod(by.price for later_ms, by in self._factors.items() if later_ms > effective_ms)
        by = factors(event, self._values[3][count - 1] if count else None, since)
        held = self._factors.get(effective_ms, Factors(1.0, 1.0))
        self._factors[effective_ms] = Factors(held.price * by.price, held.volume * by.volume)
        for index in range(count):
            self._put(index, restated(self._at(index), by))
        if count:
            self._rebuild()

    def as_published(self, bar: Ohlcv, opened_ms: int) -> Ohlcv:
        """Return `bar`, as it is held, in the units of the time `opened_ms`: a message's prices are in those of its bar's open."""
        for effective_ms, by in self._factors.items():
            if effective_ms > opened_ms:
                bar = restated(bar, Factors(1 / by.price, 1 / by.volume))
        return bar

    def between(self, open_ms: int, close_ms: int) -> Iterator[Ohlcv]:
        """Yield the closed bars that open in `[open_ms, close_ms)`, oldest first."""
        index = bisect_left(self._times[0], open_ms)
        while index < len(self) and self._times[0][index] < close_ms:
            yield self._at(index)
            index += 1

    def holds_since(self, open_ms: int) -> bool:
        """Return whether every bar that opened at `open_ms` or later is still held."""
        return not self.trimmed or self._times[0][0] <= open_ms

    def offset_of(self, open_ms: int, otherwise: int) -> int:
        """Return the offset of the first bar held that opens at `open_ms` or later, `otherwise` when there is none."""
        index = bisect_left(self._times[0], open_ms)
        return self._offsets[index] if index < len(self) else otherwise

    def needed_from(self) -> int | None:
        """Return the offset from which reading the log again restores this series, None when it is empty."""
        return self._offsets[max(0, len(self) - KEPT_BARS)] if len(self) else None

    def _append(self, bar: Ohlcv, offset: int) -> Folded:
        self._times[0].append(bar.ts_open_ms)
        self._times[1].append(bar.ts_close_ms)
        for column, value in zip(self._values, _values(bar), strict=True):
            column.append(value)
        self._revisions.append(bar.revision)
        self._offsets.append(offset)
        if self._forming is not None and self._forming.ts_close_ms <= bar.ts_close_ms:
            self._forming = None
        features = self._indicators.add(_numbers(bar))
        if len(self) >= self._keep + _SLACK:
            self.trimmed = True
            for times in (*self._times, self._revisions, self._offsets):
                del times[:_SLACK]
            for values in self._values:
                del values[:_SLACK]
        return Folded(Fold.FOLDED, features={**features, **self._own_features(len(self))})

    def _revise(self, index: int, bar: Ohlcv) -> Folded:
        self._put(index, bar)
        features = self._rebuild()
        corrected = features[index]
        if index + 1 < WARM_UP_BARS and (self.trimmed or len(self) >= KEPT_BARS):
            # Bars before those held may have entered into these features, which then cannot be computed again.
            corrected = {name: value for name, value in corrected.items() if name not in RECURSIVE}
        else:
            corrected = {**corrected, **self._own_features(index + 1)}
        last = len(self) - 1
        newest = None if index == last else (self._at(last), {**features[last], **self._own_features(len(self))})
        return Folded(Fold.REVISED, features=corrected, newest=newest)

    def _rebuild(self) -> list[dict[str, float]]:
        """Compute the indicators again from all bars held; return the features of each."""
        self._indicators = Indicators()
        return [self._indicators.add(_numbers(self._at(index))) for index in range(len(self))]

    def _own_features(self, end: int, forming: Ohlcv | None = None) -> Mapping[str, float]:
        """Return the user's features of the bar before index `end`, or of `forming` after it."""
        if self._own is None:
            return {}
        first = max(0, end - LOOKBACK_BARS + (forming is not None))
        columns = [np.array(column[first:end]) for column in self._values]
        if forming is not None:
            columns = [np.append(column, value) for column, value in zip(columns, _values(forming), strict=True)]
        return self._own(BarArrays(*columns))

    def _restated(self, bar: Ohlcv) -> Ohlcv:
        for effective_ms, by in self._factors.items():
            if bar.ts_open_ms < effective_ms:
                bar = restated(bar, by)
        return bar

    def _at(self, index: int) -> Ohlcv:
        first, second, third, fourth, volume = (column[index] for column in self._values)
        return Ohlcv(self._times[0][index], self._times[1][index], first, second, third, fourth, volume, self._revisions[index])

    def _put(self, index: int, bar: Ohlcv) -> None:
        for column, value in zip(self._values, _values(bar), strict=True):
            column[index] = value
        self._revisions[index] = bar.revision


def _values(bar: Ohlcv) -> tuple[float, float, float, float, float]:
    return bar.open, bar.high, bar.low, bar.close, bar.volume


def _numbers(bar: Ohlcv) -> Bar:
    return Bar(*_values(bar))


def _same(one: Ohlcv, other: Ohlcv) -> bool:
    # Bars restated by several factors differ in the last bit by the order of the divisions.
    return one.ts_open_ms == other.ts_open_ms and all(
        math.isclose(mine, theirs, rel_tol=1e-12) for mine, theirs in zip(_values(one), _values(other), strict=True)
    )
