"""The vision model's image is drawn again to the pixel, or the difference is told."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from schemas import Instrument, MarketFeatures, RunMode, VisionFeatures
from services.console.chart_image import redraw
from services.console.recent import bar_of
from services.core.settings import VisionSettings
from services.vision.render import ChartSpec, image_hash, render
from tests.unit.console.records import SYMBOL, bar

SPEC = ChartSpec(20)
INSTRUMENT = Instrument(
    schema_version=1,
    run_mode=RunMode.DEMO,
    symbol=SYMBOL,
    currency="USD",
    price_increment="0.01",
    calendar="24x7",
    price_adjustment="none",
)


def _features(bars: list[MarketFeatures], spec: str = SPEC.name) -> VisionFeatures:
    rows = np.array([[[one.open, one.high, one.low, one.close, one.volume] for one in bars[-SPEC.history :]]])
    pixels = render(SPEC, rows)[0]
    return VisionFeatures.model_validate(
        {
            "schema_version": 1,
            "run_mode": RunMode.DEMO,
            "symbol": SYMBOL,
            "interval": "1m",
            "window_end_ms": bars[-1].ts_close_ms,
            "window_bars": 20,
            "image": {"spec": spec, "width": SPEC.width, "height": SPEC.height, "hash": image_hash(pixels)},
            "detector": {"name": "chart-cnn", "version": "1"},
            "p_up": 0.5,
            "patterns": [],
        }
    )


def test_the_image_is_the_one_that_the_model_saw() -> None:
    bars = [bar(number) for number in range(60)]
    image = redraw(_features(bars), [bar_of(one) for one in bars], INSTRUMENT, [], VisionSettings())
    assert image is not None
    assert image.matches
    picture = Image.open(io.BytesIO(image.png))
    assert picture.size == (SPEC.width * 4, SPEC.height * 4)


def test_bars_that_were_corrected_since_make_another_image() -> None:
    bars = [bar(number) for number in range(60)]
    features = _features(bars)
    bars[-2] = bar(58, high=150.0)
    image = redraw(features, [bar_of(one) for one in bars], INSTRUMENT, [], VisionSettings())
    assert image is not None
    assert not image.matches


@pytest.mark.parametrize(
    ("kept", "spec"), [(range(0), SPEC.name), (range(50, 60), SPEC.name), (range(59), SPEC.name), (range(60), "other/1")]
)
def test_without_the_bars_or_with_another_drawing_rule_there_is_no_image(kept: range, spec: str) -> None:
    bars = [bar(number) for number in range(60)]
    assert redraw(_features(bars, spec), [bar_of(bars[at]) for at in kept], INSTRUMENT, [], VisionSettings()) is None
