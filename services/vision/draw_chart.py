"""Draws a chart of shipped daily bars as the network sees it, enlarged."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from PIL.Image import Image

from schemas import Candle, InstrumentEvent, Pattern
from services.vision import picture
from services.vision.patterns import detect
from services.vision.render import ChartSpec, image_hash, render
from services.vision.training_series import stock_series


class ChartError(ValueError):
    """No such chart can be drawn."""


class DrawnChart(NamedTuple):
    """A picture, what stands below it, and what was found on it; `hash` is that of the network's own image."""

    image: Image
    title: str
    hash: str
    patterns: list[Pattern]


def draw_chart(
    stocks: Mapping[str, Sequence[Candle]],
    splits: Sequence[InstrumentEvent],
    spec: ChartSpec,
    symbol: str,
    until: dt.datetime | None,
    *,
    scale: int,
    show_patterns: bool,
) -> DrawnChart:
    """Return the chart of `symbol` up to the day `until`, the last one when None; `scale` is in pixels for each of the image's."""
    known = {series.symbol: series for series in stock_series(stocks, splits)}
    series = known.get(symbol) or next((one for name, one in known.items() if name.partition(".")[0] == symbol.upper()), None)
    if series is None:
        raise ChartError(f"no bars of {symbol!r} are shipped; choose one of {', '.join(known)}")
    last_ms = int(series.ts_close_ms[-1]) if until is None else int((until.replace(tzinfo=dt.UTC)).timestamp() * 1000) + 86_399_999
    shown = series.adjusted()[series.ts_close_ms <= last_ms][-spec.history :]
    if len(shown) < spec.bars:
        raise ChartError(f"{series.symbol} has {len(shown)} bars up to {until:%Y-%m-%d}; a chart needs {spec.bars}: choose a later day")
    image = render(spec, shown[None])[0]
    patterns = detect(shown[-spec.bars :])
    day = dt.datetime.fromtimestamp(int(series.ts_close_ms[series.ts_close_ms <= last_ms][-1]) / 1000, tz=dt.UTC).date()
    title = f"{series.symbol} 1d {day} {spec.name}"
    drawn = picture.annotate(image, patterns, scale=scale, footer=title) if show_patterns else picture.enlarge(image, scale)
    return DrawnChart(drawn, title, image_hash(image), patterns)
