"""Loads the chart network; torch is imported only here and only when asked, since it takes seconds and gigabytes."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Final, Literal

from services.vision.forecaster import Forecaster, ForecasterError

SHIPPED_WEIGHTS: Final = Path(str(files("services.vision") / "data" / "chart-cnn.safetensors"))


def load_forecaster(weights: Path | None = None, *, device: Literal["cpu", "cuda"] = "cpu") -> Forecaster:
    """Return the chart network with `weights` (those shipped when None) on `device`.

    Raises ForecasterError when torch is not installed, the file is missing or not such a network's, or there is no such device.
    """
    try:
        from services.vision.torch_forecaster import TorchForecaster  # noqa: PLC0415 - see above
    except ModuleNotFoundError as error:
        if error.name not in {"torch", "safetensors"}:
            raise
        raise ForecasterError(
            f"{error.name} is not installed, and the chart network needs it; install it with: pip install 'aquiline[vision]'"
        ) from error
    return TorchForecaster(SHIPPED_WEIGHTS if weights is None else weights, device=device)
