"""What a chart forecaster is, for whoever runs one, and the way to the shipped one that imports torch only when asked.

Anything that keeps this protocol can stand in the service: it is the place to put one's own model.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Final, Literal, Protocol

from schemas import Detector
from services.vision.render import ChartSpec, Floats, Pixels

SHIPPED_WEIGHTS: Final = Path(str(files("services.vision") / "data" / "chart-cnn.safetensors"))


class ForecasterError(Exception):
    """The forecaster cannot be had; the text says what is missing and what to do."""


class Forecaster(Protocol):
    """Sees charts, says how likely the market is higher after its horizon."""

    @property
    def spec(self) -> ChartSpec:
        """Return what images it was trained on."""
        ...

    @property
    def horizon_bars(self) -> int:
        """Return how many bars ahead it looks."""
        ...

    @property
    def detector(self) -> Detector:
        """Return its name and version, as messages carry them."""
        ...

    def p_up(self, images: Pixels) -> Floats:
        """Return probabilities (n,) for images (n, height, width) of 0 and 255. Called from one thread at a time."""
        ...


def load_forecaster(weights: Path | None = None, *, device: Literal["cpu", "cuda"] = "cpu") -> Forecaster:
    """Return the chart network with `weights` (those shipped when None) on `device`.

    Raises ForecasterError when torch is not installed, the file is missing or not such a network's, or there is no such device.
    """
    try:
        from services.vision.torch_forecaster import TorchForecaster  # noqa: PLC0415 - torch takes seconds and gigabytes
    except ModuleNotFoundError as error:
        if error.name not in {"torch", "safetensors"}:
            raise
        raise ForecasterError(
            f"{error.name} is not installed, and the chart network needs it; install it with: pip install 'aquiline[vision]'"
        ) from error
    return TorchForecaster(SHIPPED_WEIGHTS if weights is None else weights, device=device)
