"""Closed bars of one symbol and interval in packed arrays, each with a slot for the line that the prompt room makes of it.

Packed, because 1,000 symbols of 512 bars take about 180 MB so and 767 MB as pydantic objects.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Mapping

from schemas import MarketFeatures
from services.core.folding.bar_fold import DUPLICATE, FOLDED, Fold

_SLACK = 64


class Bars:
    """Closed bars, oldest first, with strictly increasing `ts_close_ms`, and the forming bar after them."""

    __slots__ = (
        "close",
        "features",
        "forming",
        "gap",
        "high",
        "keep",
        "last_close_ms",
        "low",
        "open",
        "rendered",
        "revision",
        "rsi",
        "scaled",
        "total",
        "ts_close",
        "ts_open",
        "volume",
    )

    def __init__(self, keep: int) -> None:
        """Hold the last `keep` bars, and a few more between trimmings."""
        self.keep = keep
        self.ts_open = array("q")
        self.ts_close = array("q")
        self.open = array("d")
        self.high = array("d")
        self.low = array("d")
        self.close = array("d")
        self.volume = array("d")
        self.rsi = array("d")
        self.revision = array("q")
        self.gap = array("q")
        """Scheduled slots missing before each bar."""
        self.rendered: list[str | None] = []
        """What `services.fusion.prompt.lines` made of each bar: None before it is asked for, and again when the bar changes."""
        self.features: dict[str, float] = {}
        """Of the last closed bar."""
        self.forming: MarketFeatures | None = None
        self.scaled: set[tuple[int, float]] = set()
        """Splits (effective_ms, ratio) that these bars are already on the scale of."""
        self.last_close_ms = 0
        """When the last closed bar closed, 0 when there is none."""
        self.total = 0
        """Closed bars folded, evicted ones included."""

    def __len__(self) -> int:
        return len(self.ts_close)

    def form(self, bar: MarketFeatures) -> Fold:
        """Take a bar that is still open. It says nothing new of a slot that has closed, and is late when a later one forms already."""
        forming, ts_close_ms = self.forming, bar.ts_close_ms
        if ts_close_ms <= self.last_close_ms:
            return DUPLICATE
        if forming is not None and ts_close_ms <= (forming_ms := forming.ts_close_ms):
            if ts_close_ms < forming_ms:
                return Fold.LATE
            # Comparing whole messages takes as long as all the rest; most updates differ in volume or price.
            if bar.volume == forming.volume and bar.close == forming.close and bar == forming:
                return DUPLICATE
        self.forming = bar
        return FOLDED

    def place(self, bar: MarketFeatures) -> Fold:
        """Return what becomes of a closed bar, changing nothing."""
        last = self.last_close_ms
        if bar.ts_close_ms > last:
            return FOLDED if bar.ts_open_ms >= last else Fold.CONFLICT
        index = bisect_left(self.ts_close, bar.ts_close_ms)
        # How much more than `keep` is held depends on when the book was begun; what becomes of a record must not.
        if index < len(self) - self.keep or self.ts_close[index] != bar.ts_close_ms:
            return Fold.LATE
        if self._same(index, bar):
            newest = index == len(self) - 1 and bar.revision >= self.revision[index]
            return Fold.REVISED if newest and _recomputed(self.features, bar.features) else Fold.DUPLICATE
        return Fold.REVISED if bar.revision > self.revision[index] else Fold.CONFLICT

    def append(self, bar: MarketFeatures, gap: int) -> None:
        """Add a closed bar for which `place` said FOLDED, after `gap` missing slots."""
        ratio = self._ratio(bar.ts_open_ms)
        self.ts_open.append(bar.ts_open_ms)
        self.ts_close.append(bar.ts_close_ms)
        self.last_close_ms = bar.ts_close_ms
        self.open.append(bar.open / ratio)
        self.high.append(bar.high / ratio)
        self.low.append(bar.low / ratio)
        self.close.append(bar.close / ratio)
        self.volume.append(bar.volume * ratio)
        self.rsi.append(bar.features.get("rsi", -1.0))
        self.revision.append(bar.revision)
        self.gap.append(gap)
        self.rendered.append(None)
        self.total += 1
        self.features = bar.features
        if self.forming is not None and self.forming.ts_close_ms <= bar.ts_close_ms:
            self.forming = None
        if len(self.ts_close) > self.keep + _SLACK:
            self._trim(len(self.ts_close) - self.keep)

    def revise(self, bar: MarketFeatures) -> None:
        """Put a bar for which `place` said REVISED in place of the one it corrects."""
        index = bisect_left(self.ts_close, bar.ts_close_ms)
        ratio = self._ratio(bar.ts_open_ms)
        self.ts_open[index] = bar.ts_open_ms
        self.open[index] = bar.open / ratio
        self.high[index] = bar.high / ratio
        self.low[index] = bar.low / ratio
        self.close[index] = bar.close / ratio
        self.volume[index] = bar.volume * ratio
        self.rsi[index] = bar.features.get("rsi", -1.0)
        self.revision[index] = bar.revision
        self.rendered[index] = None
        # The corrected bar entered into the newest one's features: those are unknown until their producer publishes that bar again.
        self.features = bar.features if index == len(self) - 1 else {}

    def rescale(self, effective_ms: int, ratio: float) -> int:
        """Put bars that open before `effective_ms` on the scale after a split of `ratio` new for each old; return how many.

        A bar counts as on the old scale as a whole. Applying the same split twice changes nothing.
        """
        if (effective_ms, ratio) in self.scaled:
            return 0
        self.scaled.add((effective_ms, ratio))
        count = bisect_left(self.ts_open, effective_ms)
        for index in range(count):
            self.open[index] /= ratio
            self.high[index] /= ratio
            self.low[index] /= ratio
            self.close[index] /= ratio
            self.volume[index] *= ratio
            self.rendered[index] = None
        return count

    def first_after(self, at_ms: int) -> int:
        """Return the index of the first bar that closes after `at_ms`, `len(self)` when none does."""
        return bisect_right(self.ts_close, at_ms)

    def jump_in(self, count: int, limit: float) -> int | None:
        """Return when the latest of the last `count` bars closed that jumped by more than `limit` times either way, None if none did."""
        for index in range(len(self) - 1, max(0, len(self) - 1 - count), -1):
            if not 1 / limit <= self.close[index] / self.close[index - 1] <= limit:
                return self.ts_close[index]
        return None

    def missing_in(self, count: int) -> int:
        """Return how many scheduled slots are missing inside the last `count` bars."""
        return sum(self.gap[max(1, len(self) - count) :])

    def longest_gap_in(self, count: int) -> int:
        """Return how many scheduled slots in a row are missing at most inside the last `count` bars."""
        return max(self.gap[max(1, len(self) - count) :], default=0)

    def _same(self, index: int, bar: MarketFeatures) -> bool:
        ratio = self._ratio(bar.ts_open_ms)
        if ratio != 1.0:
            pairs = (
                (self.open[index] * ratio, bar.open),
                (self.high[index] * ratio, bar.high),
                (self.low[index] * ratio, bar.low),
                (self.close[index] * ratio, bar.close),
                (self.volume[index] / ratio, bar.volume),
            )
            return all(math.isclose(held, seen, rel_tol=1e-9) for held, seen in pairs)
        return (
            self.close[index] == bar.close
            and self.open[index] == bar.open
            and self.high[index] == bar.high
            and self.low[index] == bar.low
            and self.volume[index] == bar.volume
        )

    def _ratio(self, ts_open_ms: int) -> float:
        """Return by what a bar that opens then is divided: a record is on the scale that was in force at its bar's open."""
        return math.prod(ratio for effective_ms, ratio in sorted(self.scaled) if ts_open_ms < effective_ms)

    def _trim(self, count: int) -> None:
        for column in (
            self.ts_open,
            self.ts_close,
            self.open,
            self.high,
            self.low,
            self.close,
            self.volume,
            self.rsi,
            self.revision,
            self.gap,
            self.rendered,
        ):
            del column[:count]


def _recomputed(held: Mapping[str, float], given: Mapping[str, float]) -> bool:
    """Return whether features differ by more than a producer's restart makes them differ: the eighth digit."""
    return held.keys() != given.keys() or not all(math.isclose(held[name], given[name], rel_tol=1e-6, abs_tol=1e-12) for name in held)
