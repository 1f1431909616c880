"""The image that the vision model saw, drawn again from the bars with its own rules, so that its hash can be compared."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import NamedTuple, cast

from schemas import Candle, Instrument, Restatement, VisionFeatures
from services.console.models import Bar
from services.core.calendar import CalendarError
from services.core.settings import VisionSettings
from services.vision.book import ChartBook, Window, WindowRules
from services.vision.picture import enlarge
from services.vision.render import Bars, ChartSpec, image_hash, render

_SPEC = re.compile(r"jkx-(5|20|60)/1(\+ma)?(\+vol)?")
_SCALE = 4


class ChartImage(NamedTuple):
    """A PNG, and whether its pixels have the hash in the features."""

    png: bytes
    matches: bool


def redraw(
    vision: VisionFeatures, bars: Sequence[Bar], instrument: Instrument, restatements: Sequence[Restatement], settings: VisionSettings
) -> ChartImage | None:
    """Return the image of `vision`; None where its drawing rule is not ours, or `bars` (closed, in order) are too few."""
    named = _SPEC.fullmatch(vision.image.spec)
    if named is None:
        return None
    spec = ChartSpec(cast("Bars", int(named[1])), moving_average=named[2] is not None, volume=named[3] is not None)
    try:
        book = ChartBook(instrument, vision.interval, WindowRules(spec, settings.max_gap_bars, settings.max_jump))
    except CalendarError:
        return None
    shown = [one for one in bars if one.closed and one.ts_close_ms <= vision.window_end_ms]
    for offset, bar in enumerate(shown):
        book.take(_candle(bar, vision), offset)
    if not shown or shown[-1].ts_close_ms != vision.window_end_ms:
        return None
    window = book.window(restatements)
    if not isinstance(window, Window):
        return None
    pixels = render(spec, window.bars[None])[0]
    png = io.BytesIO()
    enlarge(pixels, _SCALE).save(png, "PNG")
    return ChartImage(png.getvalue(), image_hash(pixels).startswith(vision.image.hash))


def _candle(bar: Bar, vision: VisionFeatures) -> Candle:
    return Candle(
        schema_version=1,
        run_mode=vision.run_mode,
        symbol=vision.symbol,
        interval=vision.interval,
        ts_open_ms=bar.ts_open_ms,
        ts_close_ms=bar.ts_close_ms,
        open=bar.open,
        high=bar.high,
        low=bar.low,
        close=bar.close,
        volume=bar.volume,
        closed=True,
    )
