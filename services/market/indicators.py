"""Indicators of one series of bars, updated in constant time a bar. A feature that is not defined yet is left out, never 0 or NaN."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from talipp.indicators import ATR, BB, MACD, RSI, SMA, StdDev
from talipp.ohlcv import OHLCV

ATR_BARS: Final = 14
RSI_BARS: Final = 14
EMA_FAST_BARS: Final = 12
EMA_SLOW_BARS: Final = 26
MACD_SIGNAL_BARS: Final = 9
BOLLINGER_BARS: Final = 20
BOLLINGER_WIDTH: Final = 2.0
VOLUME_BARS: Final = 20
RETURN_BARS: Final = 5

# After this many bars the seeds of the recursive averages (slowest: the EMA of 26, then the MACD's 9) weigh less than 1e-8,
# so that indicators rebuilt from them agree with those of an unbroken run to the digits that are published.
WARM_UP_BARS: Final = 288
RECURSIVE: Final = frozenset({"atr", "rsi", "ema_fast", "ema_slow", "macd", "macd_signal", "macd_hist"})
"""The features that all bars before the last enter into, and not only those of a window."""

# talipp seeds an average when its history has exactly `period` values, so history is never cut down to near a period.
_KEEP: Final = 64
_PURGE: Final = 64
# A deviation below this share of the mean is rounding noise of equal values.
_FLAT: Final = 1e-9
_DIGITS: Final = 8


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar's numbers: prices in the instrument's currency, volume in its units."""

    open: float
    high: float
    low: float
    close: float
    volume: float


class Indicators:
    """The indicators of one symbol and interval. Memory is bounded: bars past the longest period are dropped.

    The features, each a float with 8 significant digits:

    `ret_1`, `ret_5`
        close over the close 1 or 5 bars before, less 1
    `atr`
        Wilder's average true range over 14 bars, in currency
    `rsi`
        Wilder's relative strength index over 14 bars, 0 to 100; left out while the price has not moved
    `ema_fast`, `ema_slow`
        exponential averages of the close over 12 and 26 bars, in currency
    `macd`, `macd_signal`, `macd_hist`
        `ema_fast - ema_slow`, its exponential average over 9 bars, and their difference, in currency
    `bb_pos`, `bb_width`
        where the close lies between the Bollinger bands (20 bars, 2 population deviations; 0 lower, 1 upper, beyond them
        when outside), and the bands' distance over their middle; no position while the width is 0
    `volume_z`
        volume less its average over the 20 bars before, in their population standard deviations; left out when they are all equal. With
        the bar itself among 20, no spike could exceed 4.36
    `body`, `upper_wick`, `lower_wick`
        close less open (signed), and the wicks, over the bar's range; left out when the range is 0

    Averages are seeded as talipp does (https://nardew.github.io/talipp): a plain mean of the first bars.
    """

    def __init__(self) -> None:
        """Start with no bars."""
        self._atr = ATR(ATR_BARS)
        self._rsi = RSI(RSI_BARS)
        self._macd = MACD(EMA_FAST_BARS, EMA_SLOW_BARS, MACD_SIGNAL_BARS)
        self._bands = BB(BOLLINGER_BARS, BOLLINGER_WIDTH)
        self._volume_mean = SMA(VOLUME_BARS)
        self._volume_deviation = StdDev(VOLUME_BARS)
        self._volume_before: tuple[float | None, float | None] = (None, None)
        """Mean and deviation of the volumes before the newest bar."""
        self._closes: list[float] = []

    def add(self, bar: Bar) -> dict[str, float]:
        """Add a closed bar and return its features."""
        self._push(bar)
        features = self._features(bar)
        if len(self._closes) >= _KEEP + _PURGE:
            self._purge()
        return features

    def peek(self, bar: Bar) -> dict[str, float]:
        """Return the features that a forming bar would have if it closed now, leaving the state as it was."""
        gains, losses = len(self._rsi.avg_gain), len(self._rsi.avg_loss)
        self._push(bar)
        features = self._features(bar)
        for indicator in self._of_close():
            indicator.remove()
        self._atr.remove()
        self._volume_mean.remove()
        self._volume_deviation.remove()
        self._closes.pop()
        # On the bar that seeds it, talipp's RSI appends its seed too and removes only one of the two.
        del self._rsi.avg_gain[gains:]
        del self._rsi.avg_loss[losses:]
        return features

    def _of_close(self) -> tuple[RSI, MACD, BB]:
        return self._rsi, self._macd, self._bands

    def _push(self, bar: Bar) -> None:
        self._atr.add(OHLCV(bar.open, bar.high, bar.low, bar.close, bar.volume))
        for indicator in self._of_close():
            indicator.add(bar.close)
        self._volume_before = (self._volume_mean[-1], self._volume_deviation[-1]) if self._closes else (None, None)
        self._volume_mean.add(bar.volume)
        self._volume_deviation.add(bar.volume)
        self._closes.append(bar.close)

    def _purge(self) -> None:
        for indicator in (self._atr, *self._of_close(), self._volume_mean, self._volume_deviation):
            indicator.purge_oldest(_PURGE)
        del self._closes[:_PURGE]

    def _features(self, bar: Bar) -> dict[str, float]:
        named = (*self._returns(), *self._averages(), *self._spreads(bar), *_shape(bar))
        return {name: float(f"{value:.{_DIGITS}g}") for name, value in named if math.isfinite(value)}

    def _returns(self) -> Iterator[tuple[str, float]]:
        closes = self._closes
        if len(closes) > 1:
            yield "ret_1", closes[-1] / closes[-2] - 1
        if len(closes) > RETURN_BARS:
            yield "ret_5", closes[-1] / closes[-1 - RETURN_BARS] - 1

    def _averages(self) -> Iterator[tuple[str, float]]:
        if self._atr[-1] is not None:
            yield "atr", self._atr[-1]
        if self._rsi[-1] is not None and (self._rsi.avg_gain[-1] > 0 or self._rsi.avg_loss[-1] > 0):
            yield "rsi", self._rsi[-1]
        if self._macd.ma_fast[-1] is not None:
            yield "ema_fast", self._macd.ma_fast[-1]
        if self._macd.ma_slow[-1] is not None:
            yield "ema_slow", self._macd.ma_slow[-1]
        if (lines := self._macd[-1]) is not None:
            yield "macd", lines.macd
            if lines.signal is not None:
                yield "macd_signal", lines.signal
                yield "macd_hist", lines.histogram

    def _spreads(self, bar: Bar) -> Iterator[tuple[str, float]]:
        if (bands := self._bands[-1]) is not None:
            width = bands.ub - bands.lb
            flat = width <= _FLAT * bands.cb
            yield "bb_width", 0.0 if flat else width / bands.cb
            if not flat:
                yield "bb_pos", (bar.close - bands.lb) / width
        mean, deviation = self._volume_before
        if mean is not None and deviation is not None and deviation > _FLAT * mean:
            yield "volume_z", (bar.volume - mean) / deviation


def _shape(bar: Bar) -> Iterator[tuple[str, float]]:
    span = bar.high - bar.low
    if span > 0:
        yield "body", (bar.close - bar.open) / span
        yield "upper_wick", (bar.high - max(bar.open, bar.close)) / span
        yield "lower_wick", (min(bar.open, bar.close) - bar.low) / span
