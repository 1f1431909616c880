"""Draws bars as black-and-white chart images by the specification of Jiang, Kelly and Xiu, many windows in one pass.

Pure numpy and exact: every step is an elementwise IEEE double operation or a sum in a fixed order, so that the same bars give
the same pixels, and the same hash, on every machine.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

Bars = Literal[5, 20, 60]
Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]

OPEN, HIGH, LOW, CLOSE, VOLUME = range(5)
COLUMNS: Final = 5
_HEIGHT: Final[dict[int, int]] = {5: 32, 20: 64, 60: 96}
BAR_WIDTH: Final = 3
_BLACK, _WHITE = 0, 255


@dataclass(frozen=True, slots=True)
class ChartSpec:
    """What an image shows: its bars, and whether the moving average and the volume are drawn.

    Source: J. Jiang, B. Kelly, D. Xiu, "(Re-)Imag(in)ing Price Trends", Journal of Finance 78(6), 2023, section I.
    """

    bars: Bars = 20
    moving_average: bool = True
    volume: bool = True

    def __post_init__(self) -> None:
        """Raise ValueError for a number of bars that the specification has no image for."""
        if self.bars not in _HEIGHT:
            raise ValueError(f"a chart of {self.bars} bars has no specification; choose one of {sorted(_HEIGHT)}")

    @property
    def height(self) -> int:
        """Return the image's height in pixels."""
        return _HEIGHT[self.bars]

    @property
    def width(self) -> int:
        """Return the image's width in pixels: three a bar."""
        return self.bars * BAR_WIDTH

    @property
    def volume_height(self) -> int:
        """Return the rows at the bottom that volume is drawn in: a fifth, rounded down; 0 without volume."""
        return self.height // 5 if self.volume else 0

    @property
    def price_height(self) -> int:
        """Return the rows at the top that prices are drawn in; one empty row separates them from the volume."""
        return self.height - self.volume_height - 1 if self.volume else self.height

    @property
    def history(self) -> int:
        """Return how many bars a complete image needs: its own, and those before them that its first moving average includes."""
        return 2 * self.bars - 1 if self.moving_average else self.bars

    @property
    def name(self) -> str:
        """Return the label that messages carry, with the version of this drawing rule: `jkx-20/1+ma+vol`."""
        return f"jkx-{self.bars}/1" + ("+ma" if self.moving_average else "") + ("+vol" if self.volume else "")


def moving_average(spec: ChartSpec, bars: Floats) -> Floats:
    """Return the mean close over `spec.bars` bars at each of the last `spec.bars` bars, NaN where bars are too few or missing.

    `bars` has the shape (batch, n, 5) as in `render`; the result (batch, spec.bars).
    """
    size = spec.bars
    count = bars.shape[1]
    padded = np.full((len(bars), 2 * size - 1), np.nan)
    kept = min(count, 2 * size - 1)
    padded[:, 2 * size - 1 - kept :] = bars[:, count - kept :, CLOSE]
    total = np.zeros((len(bars), size))
    for back in range(size):  # one bar after the other: the order of the sum, and so its last bit, is the same everywhere
        total += padded[:, back : back + size]
    return total / size


def render(spec: ChartSpec, bars: Floats) -> Pixels:
    """Return images, white (255) on black (0), of the shape (batch, height, width), row 0 at the top.

    `bars` has the shape (batch, n, 5): open, high, low, close, volume of n consecutive bars, oldest first, n at least
    `spec.bars`; those before the last `spec.bars` enter into the moving average alone. The highest high (or moving average) of a
    window touches its top row, the lowest low (or moving average) the bottom row of the price area; a window of one single price
    is a line in the middle. A bar of NaN prices stays an empty column; NaN volume draws none. The moving average is drawn at the
    bars that have `spec.bars` closes up to them.

    Raises ValueError for other shapes, for infinite values and for a window without any price.
    """
    if bars.shape[2:] != (COLUMNS,) or bars.shape[1] < spec.bars:
        raise ValueError(f"bars have the shape {bars.shape}; expected (batch, at least {spec.bars}, {COLUMNS})")
    if np.isinf(bars).any():
        raise ValueError("bars hold infinite values; every price and volume must be finite, or NaN for a bar that is missing")
    window = bars[:, -spec.bars :]
    if np.isnan(window[:, :, CLOSE]).all(axis=1).any():
        raise ValueError("a window holds no price at all; leave windows of missing bars out")
    average = moving_average(spec, bars) if spec.moving_average else None
    prices = _PriceScale(spec, window, average)
    images = np.zeros((len(bars), spec.height, spec.width), dtype=np.bool_)
    _draw_bars(images, window, prices)
    if average is not None:
        _draw_average(images, average, prices)
    if spec.volume:
        _draw_volume(images, window, spec)
    return np.where(images, np.uint8(_WHITE), np.uint8(_BLACK))


def image_hash(image: Pixels) -> str:
    """Return the SHA-256, in hex, of one image's pixels: height times width bytes of 0 or 255, row after row from the top."""
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()


class _PriceScale:
    """Maps prices to rows, each window by its own extremes."""

    def __init__(self, spec: ChartSpec, window: Floats, average: Floats | None) -> None:
        highest = _reduce(np.fmax, window[:, :, HIGH])
        lowest = _reduce(np.fmin, window[:, :, LOW])
        if average is not None:
            highest = np.fmax(highest, _reduce(np.fmax, average))
            lowest = np.fmin(lowest, _reduce(np.fmin, average))
        self._lowest = lowest[:, None]
        self._span = (highest - lowest)[:, None]
        self._last_row = spec.price_height - 1

    def rows(self, values: Floats) -> Floats:
        """Return rows (whole numbers, 0 at the top) of prices of the shape (batch, n); NaN stays NaN."""
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.where(self._span > 0, (values - self._lowest) / self._span, np.where(np.isnan(values), np.nan, 0.5))
        return self._last_row - np.floor(share * self._last_row + 0.5)


def _reduce(ufunc: np.ufunc, values: Floats) -> Floats:
    reduced: Floats = ufunc.reduce(values, axis=1)
    return reduced


def _draw_bars(images: NDArray[np.bool_], window: Floats, prices: _PriceScale) -> None:
    row = np.arange(images.shape[1])[None, :, None]
    top, bottom = prices.rows(window[:, :, HIGH])[:, None, :], prices.rows(window[:, :, LOW])[:, None, :]
    images[:, :, 1::3] |= (row >= top) & (row <= bottom)
    images[:, :, 0::3] |= row == prices.rows(window[:, :, OPEN])[:, None, :]
    images[:, :, 2::3] |= row == prices.rows(window[:, :, CLOSE])[:, None, :]


def _draw_average(images: NDArray[np.bool_], average: Floats, prices: _PriceScale) -> None:
    """One dot in the middle of each bar, joined by straight lines; where those are steep a column is filled to the next dot."""
    batch, bars = average.shape
    line = np.full((batch, bars * BAR_WIDTH), np.nan)
    line[:, 1::3] = average
    line[:, 2:-1:3] = (2 * average[:, :-1] + average[:, 1:]) / 3
    line[:, 3::3] = (average[:, :-1] + 2 * average[:, 1:]) / 3
    here = prices.rows(line)
    following = np.full_like(here, np.nan)
    following[:, :-1] = here[:, 1:]
    following = np.where(np.isnan(following), here, following)
    last = following + np.sign(here - following)  # the next column draws its own dot
    top = np.where(here == following, here, np.minimum(here, last))[:, None, :]
    bottom = np.where(here == following, here, np.maximum(here, last))[:, None, :]
    row = np.arange(images.shape[1])[None, :, None]
    images |= (row >= top) & (row <= bottom)


def _draw_volume(images: NDArray[np.bool_], window: Floats, spec: ChartSpec) -> None:
    volume = window[:, :, VOLUME]
    highest = _reduce(np.fmax, volume)[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        filled = np.where(highest > 0, np.floor(volume / highest * spec.volume_height + 0.5), 0.0)[:, None, :]
    up_from_bottom = spec.height - np.arange(spec.height)[None, :, None]
    images[:, :, 1::3] |= up_from_bottom <= filled
