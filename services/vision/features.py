"""Computes the vision features of a batch of windows: chart images, one forward pass of the model, patterns.

The service runs this in its worker thread.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

import numpy as np

from schemas import Image, VisionFeatures
from services.core.metrics import VISION_BATCH_IMAGES, VISION_SECONDS
from services.vision.book import Window
from services.vision.forecaster import Forecaster
from services.vision.patterns import detect
from services.vision.render import image_hash, render

_DECIMALS: Final = 4
"""Decimals of `p_up`: the same window in batches of different sizes differs in the seventh."""


def compute_features(windows: Sequence[Window], forecaster: Forecaster) -> list[VisionFeatures]:
    """Return the features of each window, in order."""
    started_s = time.perf_counter()
    spec = forecaster.spec
    images = render(spec, np.stack([window.bars for window in windows]))
    rendered_s = time.perf_counter()
    probabilities = forecaster.p_up(images)
    forecast_s = time.perf_counter()
    features = [
        VisionFeatures(
            schema_version=1,
            run_mode=window.run_mode,
            symbol=window.symbol,
            interval=window.interval,
            window_end_ms=window.window_end_ms,
            window_bars=spec.bars,
            image=Image(spec=spec.name, width=spec.width, height=spec.height, hash=image_hash(image)),
            detector=forecaster.detector,
            p_up=round(float(p_up), _DECIMALS),
            patterns=detect(window.bars[-spec.bars :]),
        )
        for window, image, p_up in zip(windows, images, probabilities, strict=True)
    ]
    VISION_BATCH_IMAGES.observe(len(windows))
    for stage, seconds in (
        ("render", rendered_s - started_s),
        ("forward", forecast_s - rendered_s),
        ("patterns", time.perf_counter() - forecast_s),
    ):
        VISION_SECONDS.labels(stage).observe(seconds)
    return features
