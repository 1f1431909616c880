"""The protocol of a chart forecaster: implement it to run your own model in the vision service.

`services.vision.loading` returns the shipped implementation, in numpy or torch.
"""

from __future__ import annotations

from typing import Protocol

from schemas import Detector
from services.vision.render import ChartSpec, Floats, Pixels


class ForecasterError(Exception):
    """The forecaster cannot be loaded; the text says what is missing and what to do."""


class Forecaster(Protocol):
    """Estimates from chart images how likely the market is to rise within its horizon."""

    @property
    def spec(self) -> ChartSpec:
        """Return the images that it was trained on."""
        ...

    @property
    def horizon_bars(self) -> int:
        """Return how many bars ahead it forecasts."""
        ...

    @property
    def detector(self) -> Detector:
        """Return its name and version, as messages carry them."""
        ...

    def p_up(self, images: Pixels) -> Floats:
        """Return probabilities (n,) for images (n, height, width) of 0 and 255. Called from one thread at a time."""
        ...
