"""Loads the chart network: numpy runs it on the CPU, torch on a GPU. torch is imported only then, since it takes seconds and gigabytes."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Final, Literal

from schemas import Detector
from services.vision.forecaster import Forecaster, ForecasterError
from services.vision.skill import read_skill

SHIPPED_WEIGHTS: Final = Path(str(files("services.vision") / "data" / "chart-cnn.safetensors"))


def load_forecaster(weights: Path | None = None, *, device: Literal["cpu", "cuda"] = "cpu") -> Forecaster:
    """Return the chart network with `weights` (those shipped when None) on `device`.

    Raises ForecasterError when the file is missing or not such a network's, torch is not installed, or there is no such device.
    """
    from services.vision.weights import read_weights  # noqa: PLC0415 - most that import this module load nothing

    file = SHIPPED_WEIGHTS if weights is None else weights
    read = read_weights(file)
    detector = Detector(
        name=f"chart-cnn-{read.about.bars}-{read.about.horizon_bars}",
        version=read.digest[:12],
        horizon_bars=read.about.horizon_bars,
        skill=read_skill(file, read.digest),
    )
    if device == "cpu":
        from services.vision.numpy_forecaster import NumpyForecaster  # noqa: PLC0415

        return NumpyForecaster(read, detector)
    try:
        from services.vision.torch_forecaster import TorchForecaster  # noqa: PLC0415 - see above
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ForecasterError(
            "vision.device is 'cuda', and torch is not installed; set it to 'cpu', or install torch with: pip install 'aquiline[vision]'"
        ) from error
    return TorchForecaster(read, detector)
