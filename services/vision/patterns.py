"""Detects classic chart patterns in the window that the image shows, by fixed rules, each with a score and the bars that it spans.

Lengths are measured in the window's unit, its mean bar range, so that a rule means the same at every price and interval. A score
of 0.5 just meets the rule; 1.0 is a textbook example. `docs/vision.md` shows an example of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas import Pattern
from schemas.vision import MAX_PATTERNS
from services.vision.render import CLOSE, HIGH, LOW, OPEN

RECENT_BARS: Final = 5
"""Patterns of one or two bars are reported only when they end within this many bars of the window's end."""

DOJI_BODY: Final = 0.1
HAMMER_SHADOW: Final = 0.6
HAMMER_UPPER: Final = 0.15
TREND_BARS: Final = 8
ENGULFED_BODY: Final = 0.1
SWING_BARS: Final = 2
PEAK_DISTANCE: Final = 4
PEAK_TOLERANCE: Final = 0.75
VALLEY_DEPTH: Final = 2.0
RANGE_BARS: Final = 10
RANGE_WIDTH: Final = 3.5
BREAKOUT: Final = 0.25
LEAST_BAR: Final = 0.5


@dataclass(frozen=True, slots=True)
class _Window:
    """The window as lists of floats, which are faster than arrays for twenty bars, with its mean bar range."""

    opens: list[float]
    highs: list[float]
    lows: list[float]
    closes: list[float]
    unit: float

    @property
    def size(self) -> int:
        return len(self.closes)

    def body(self, bar: int) -> float:
        return abs(self.closes[bar] - self.opens[bar])

    def upside_down(self) -> _Window:
        """Mirror the prices, so that a rule for tops finds bottoms."""
        return _Window(
            opens=[-price for price in self.opens],
            highs=[-price for price in self.lows],
            lows=[-price for price in self.highs],
            closes=[-price for price in self.closes],
            unit=self.unit,
        )

    def recent(self) -> range:
        return range(max(0, self.size - RECENT_BARS), self.size)


def detect(window: NDArray[np.float64]) -> list[Pattern]:
    """Return the patterns in `window`, the latest and best first, at most 16.

    `window` has the shape (bars, 5) as in `services.vision.render`: open, high, low, close, volume, oldest bar first. Bars that are
    missing (NaN) take part in no pattern. A window of one single price has none.
    """
    ranges = window[:, HIGH] - window[:, LOW]
    known = ranges[~np.isnan(ranges)]
    unit = float(known.mean()) if len(known) else 0.0
    if unit <= 0:
        return []
    bars = _Window(
        opens=window[:, OPEN].tolist(),
        highs=window[:, HIGH].tolist(),
        lows=window[:, LOW].tolist(),
        closes=window[:, CLOSE].tolist(),
        unit=unit,
    )
    found = [pattern for rule in _RULES for pattern in rule(bars)]
    found.sort(key=lambda pattern: (-pattern.last_bar, -pattern.score, pattern.label))
    return found[:MAX_PATTERNS]


def _doji(window: _Window) -> Iterator[Pattern]:
    """Find open and close all but equal: the body at most a tenth of a bar's range, in a bar of at least half a unit."""
    for bar in window.recent():
        length = window.highs[bar] - window.lows[bar]
        if length >= LEAST_BAR * window.unit and window.body(bar) <= DOJI_BODY * length:
            yield _pattern("doji", 1 - window.body(bar) / (DOJI_BODY * length), bar, bar)


def _hammer(window: _Window) -> Iterator[Pattern]:
    """Find, after a decline, a long lower shadow under a small body at the top of the bar.

    The lower shadow is at least 0.6 of the bar's range and twice the body, the upper shadow at most 0.15 of the range, the bar at
    least half a unit long, and the close before it at least a unit below the one eight bars earlier.
    """
    for bar in window.recent():
        if bar <= TREND_BARS:
            continue
        opened, high, low, close = window.opens[bar], window.highs[bar], window.lows[bar], window.closes[bar]
        length = high - low
        lower, upper = min(opened, close) - low, high - max(opened, close)
        declined = window.closes[bar - 1] <= window.closes[bar - 1 - TREND_BARS] - window.unit
        small = upper <= HAMMER_UPPER * length and lower >= 2 * window.body(bar)
        if declined and small and length >= LEAST_BAR * window.unit and lower >= HAMMER_SHADOW * length:
            yield _pattern("hammer", (lower / length - HAMMER_SHADOW) / (0.9 - HAMMER_SHADOW), bar, bar)


def _bullish_engulfing(window: _Window) -> Iterator[Pattern]:
    """Find a rising body that encloses the falling one before it, from its open or below to its close or above, and is larger.

    The body is at least half a unit, the one before at least a tenth. Twice the earlier body and more scores 1.
    """
    for bar in window.recent():
        if bar == 0:
            continue
        before, body = window.opens[bar - 1] - window.closes[bar - 1], window.closes[bar] - window.opens[bar]
        encloses = window.opens[bar] <= window.closes[bar - 1] and window.closes[bar] >= window.opens[bar - 1]
        large = body >= LEAST_BAR * window.unit and before >= ENGULFED_BODY * window.unit and body > before
        if encloses and large:
            yield _pattern("bullish_engulfing", body / before - 1, bar - 1, bar)


def _bearish_engulfing(window: _Window) -> Iterator[Pattern]:
    """Mirror the rule of a bullish engulfing."""
    yield from _renamed(_bullish_engulfing(window.upside_down()), "bearish_engulfing")


def _double_top(window: _Window) -> Iterator[Pattern]:
    """Find two peaks of one height with a valley between them, and a last close under the peaks: the best pair of the window.

    A peak is a high that no high of the two bars on either side exceeds. The peaks lie at least four bars apart, their heights
    differ by at most 0.75 units, no high between them exceeds both, the lowest low between them is at least two units below the
    lower peak, and the window's last close at least one. Equal heights and a valley four units deep score 1.
    """
    peaks = [bar for bar in range(SWING_BARS, window.size - SWING_BARS) if _is_peak(window.highs, bar)]
    best: Pattern | None = None
    for index, first in enumerate(peaks):
        for second in peaks[index + 1 :]:
            quality = _double_top_quality(window, first, second)
            if quality is not None:
                pattern = _pattern("double_top", quality, first, second)
                if best is None or pattern.score >= best.score:
                    best = pattern
    if best is not None:
        yield best


def _double_top_quality(window: _Window, first: int, second: int) -> float | None:
    lower = min(window.highs[first], window.highs[second])
    difference = abs(window.highs[first] - window.highs[second]) / window.unit
    if second - first < PEAK_DISTANCE or difference > PEAK_TOLERANCE:
        return None
    if max(window.highs[first + 1 : second]) > max(window.highs[first], window.highs[second]):
        return None
    depth = (lower - min(window.lows[first + 1 : second])) / window.unit
    if not (depth >= VALLEY_DEPTH and lower - window.closes[-1] >= window.unit):
        return None
    return (1 - difference / PEAK_TOLERANCE + min(1.0, depth / VALLEY_DEPTH - 1)) / 2


def _double_bottom(window: _Window) -> Iterator[Pattern]:
    """Mirror the rule of a double top."""
    yield from _renamed(_double_top(window.upside_down()), "double_bottom")


def _breakout_up(window: _Window) -> Iterator[Pattern]:
    """Find a last close that leaves the range of the ten bars before it upwards.

    Their highest high and lowest low are at most 3.5 units apart, and the close is at least a quarter of a unit beyond; one unit
    and a quarter beyond scores 1.
    """
    last = window.size - 1
    first = last - RANGE_BARS
    if first < 0:
        return
    top, bottom = max(window.highs[first:last]), min(window.lows[first:last])
    beyond = (window.closes[last] - top) / window.unit
    if top - bottom <= RANGE_WIDTH * window.unit and beyond >= BREAKOUT:
        yield _pattern("range_breakout_up", beyond - BREAKOUT, first, last)


def _breakout_down(window: _Window) -> Iterator[Pattern]:
    """Mirror the rule of a breakout upwards."""
    yield from _renamed(_breakout_up(window.upside_down()), "range_breakout_down")


_RULES: Final[tuple[Callable[[_Window], Iterator[Pattern]], ...]] = (
    _doji,
    _hammer,
    _bullish_engulfing,
    _bearish_engulfing,
    _double_top,
    _double_bottom,
    _breakout_up,
    _breakout_down,
)


def _is_peak(highs: list[float], bar: int) -> bool:
    return all(highs[bar] >= highs[other] for other in range(bar - SWING_BARS, bar + SWING_BARS + 1))


def _pattern(label: str, quality: float, first_bar: int, last_bar: int) -> Pattern:
    score = round(0.5 + 0.5 * min(1.0, max(0.0, quality)), 3)
    return Pattern(label=label, score=score, first_bar=first_bar, last_bar=last_bar)


def _renamed(patterns: Iterator[Pattern], label: str) -> Iterator[Pattern]:
    for pattern in patterns:
        yield pattern.model_copy(update={"label": label})
