"""Labelled windows of daily series, split by time so that no part sees data of a later one. Pure numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.vision.render import CLOSE, COLUMNS, VOLUME, ChartSpec, Floats, Pixels, render

Times = NDArray[np.int64]
HORIZON_BARS: Final = 5
_RENDER_AT_ONCE: Final = 512


@dataclass(frozen=True, slots=True)
class PriceSplit:
    """`ratio` new units for each old one, for bars that close at `effective_ms` or later."""

    effective_ms: int
    ratio: float


@dataclass(frozen=True, slots=True)
class Series:
    """The bars of one symbol as they traded: `bars` (n, 5) as in `services.vision.render`, `ts_close_ms` (n,) increasing."""

    symbol: str
    ts_close_ms: Times
    bars: Floats
    splits: tuple[PriceSplit, ...] = ()

    def __post_init__(self) -> None:
        """Raise ValueError when the arrays do not fit together."""
        if self.bars.shape != (len(self.ts_close_ms), COLUMNS):
            raise ValueError(
                f"{self.symbol}: bars have the shape {self.bars.shape}; expected ({len(self.ts_close_ms)}, {COLUMNS}), "
                "one row for each time"
            )
        if (np.diff(self.ts_close_ms) <= 0).any():
            raise ValueError(f"{self.symbol}: ts_close_ms must increase from bar to bar; sort the series and drop duplicates")

    def adjusted(self) -> Floats:
        """Return the bars on the scale of the last one: before a split of r, prices divided and volumes multiplied by r."""
        bars = self.bars.copy()
        for split in self.splits:
            before = self.ts_close_ms < split.effective_ms
            bars[before, :VOLUME] /= split.ratio
            bars[before, VOLUME] *= split.ratio
        return bars


@dataclass(frozen=True, slots=True)
class Samples:
    """Windows with their labels: `bars` (n, history, 5), `up` (n,) whether the close `horizon` bars later is higher.

    `start_ms`, `end_ms` and `label_end_ms` (n,) are the closing times of the first bar used, of the window's last bar, and of the
    bar that decides the label.
    """

    spec: ChartSpec
    horizon: int
    bars: Floats
    up: NDArray[np.bool_]
    start_ms: Times
    end_ms: Times
    label_end_ms: Times
    symbols: NDArray[np.str_]

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.up)

    def where(self, keep: NDArray[np.bool_]) -> Samples:
        """Return the windows that the mask `keep` (n,) names, in order."""
        return Samples(
            spec=self.spec,
            horizon=self.horizon,
            bars=self.bars[keep],
            up=self.up[keep],
            start_ms=self.start_ms[keep],
            end_ms=self.end_ms[keep],
            label_end_ms=self.label_end_ms[keep],
            symbols=self.symbols[keep],
        )

    def images(self) -> Pixels:
        """Return the images (n, height, width)."""
        parts = [render(self.spec, self.bars[first : first + _RENDER_AT_ONCE]) for first in range(0, len(self), _RENDER_AT_ONCE)]
        return np.concatenate(parts) if parts else np.empty((0, self.spec.height, self.spec.width), dtype=np.uint8)


@dataclass(frozen=True, slots=True)
class Parts:
    """The windows for training, for early stopping and calibration, and for evaluation."""

    train: Samples
    validation: Samples
    test: Samples


def build_samples(series: Sequence[Series], spec: ChartSpec, horizon: int = HORIZON_BARS) -> Samples:
    """Return every window with a complete image and a known label, ordered by its end, then by symbol.

    Raises ValueError when no series is long enough.
    """
    span = spec.history + horizon
    pieces = [_windows(one, spec.history, horizon) for one in series if len(one.ts_close_ms) >= span]
    if not pieces:
        raise ValueError(f"none of {len(series)} series has the {span} bars that one window and its label take")
    bars, up, start, end, label_end = (np.concatenate(arrays) for arrays in zip(*(piece[1:] for piece in pieces), strict=True))
    symbols = np.concatenate([np.full(len(piece[2]), piece[0]) for piece in pieces])
    order = np.lexsort((symbols, end))
    return Samples(
        spec=spec,
        horizon=horizon,
        bars=bars[order],
        up=up[order],
        start_ms=start[order],
        end_ms=end[order],
        label_end_ms=label_end[order],
        symbols=symbols[order],
    )


def split_by_time(samples: Samples, *, validation_from_ms: int, test_from_ms: int) -> Parts:
    """Return the three parts in time; windows that cross a boundary, label or history, belong to none.

    A part holds the windows whose first bar closes at its start or later and whose label is decided before the next part's start.
    Raises ValueError when a part is left empty.
    """
    if validation_from_ms >= test_from_ms:
        raise ValueError(f"validation starts at {validation_from_ms} ms, which must be before the test's start, {test_from_ms} ms")
    parts = Parts(
        train=samples.where(samples.label_end_ms < validation_from_ms),
        validation=samples.where((samples.start_ms >= validation_from_ms) & (samples.label_end_ms < test_from_ms)),
        test=samples.where(samples.start_ms >= test_from_ms),
    )
    for name, part in (("train", parts.train), ("validation", parts.validation), ("test", parts.test)):
        if not len(part):
            raise ValueError(
                f"the part {name!r} holds no window with validation from {validation_from_ms} ms and test from "
                f"{test_from_ms} ms; move these inside the data"
            )
    return parts


def _windows(series: Series, history: int, horizon: int) -> tuple[str, Floats, NDArray[np.bool_], Times, Times, Times]:
    bars = series.adjusted()
    count = len(bars) - history - horizon + 1
    windows = np.lib.stride_tricks.sliding_window_view(bars, history, axis=0)[:count].transpose(0, 2, 1)
    close = bars[:, CLOSE]
    last = np.arange(count) + history - 1
    times = series.ts_close_ms
    up = close[last + horizon] > close[last]
    return series.symbol, windows, up, times[last - history + 1], times[last], times[last + horizon]
