"""The vision features of a symbol's last few windows, by interval, and which of them a decision uses."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import Final

from schemas import Vision, VisionFeatures
from services.core.folding.bar_fold import Fold
from services.fusion.state.bars import Bars

_KEPT: Final = 8


@dataclass(frozen=True, slots=True)
class CurrentVision:
    """The vision features that a decision uses: `features` is None with `absent`; `age_ms` is event time to the last close."""

    state: Vision
    features: VisionFeatures | None
    age_ms: int | None


class VisionWindows:
    """The last windows of each interval, in order of their ends, whatever the order in which they came."""

    def __init__(self) -> None:
        """Start empty."""
        self._kept: dict[str, list[VisionFeatures]] = {}

    def fold(self, features: VisionFeatures) -> Fold:
        """Fold vision features: the last few windows of an interval are kept, a window that comes again is replaced."""
        kept = self._kept.setdefault(features.interval, [])
        ends = [one.window_end_ms for one in kept]
        index = bisect_left(ends, features.window_end_ms)
        if index < len(kept) and ends[index] == features.window_end_ms:
            if kept[index] == features:
                return Fold.DUPLICATE
            kept[index] = features
            return Fold.FOLDED
        if index == 0 and len(kept) == _KEPT:
            return Fold.LATE
        kept.insert(index, features)
        del kept[:-_KEPT]
        return Fold.FOLDED

    def expected(self, interval: str, bars: Bars) -> bool:
        """Return whether features have been coming: one of the last few bars has a window that ended with it."""
        kept = self._kept.get(interval, [])
        return kept != [] and len(bars) - bars.first_after(kept[-1].window_end_ms) <= _KEPT

    def current(self, interval: str, bars: Bars, max_age_bars: int) -> CurrentVision:
        """Return the newest features of a window that ends by the last of `bars`; absent when more than `max_age_bars` closed since."""
        kept = self._kept.get(interval, ())
        index = bisect_right([one.window_end_ms for one in kept], bars.last_close_ms) - 1
        if index < 0:
            return CurrentVision("absent", None, None)
        age_ms = bars.last_close_ms - kept[index].window_end_ms
        if age_ms == 0:
            return CurrentVision("fresh", kept[index], 0)
        if len(bars) - bars.first_after(kept[index].window_end_ms) > max_age_bars:
            return CurrentVision("absent", None, None)
        return CurrentVision("stale", kept[index], age_ms)
