"""The chart network as a forecaster, on the CPU or on CUDA."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch

from schemas import Detector
from services.vision.forecaster import ForecasterError
from services.vision.render import ChartSpec, Floats, Pixels
from services.vision.skill import read_skill
from services.vision.weights import read_weights


class TorchForecaster:
    """Implements `services.vision.forecaster.Forecaster`."""

    def __init__(self, weights: Path, *, device: Literal["cpu", "cuda"]) -> None:
        """Load the weights and set torch to one CPU thread for this process; raise ForecasterError when they cannot be loaded."""
        if device == "cuda" and not torch.cuda.is_available():
            raise ForecasterError(
                "vision.device is 'cuda', and torch finds no such device here; set it to 'cpu', or mend driver and container"
            )
        network, about, digest = read_weights(weights)
        self._spec = ChartSpec(bars=about.bars, moving_average=about.moving_average, volume=about.volume)  # type: ignore[arg-type]
        self._horizon_bars = about.horizon_bars
        self._detector = Detector(
            name=f"chart-cnn-{about.bars}-{about.horizon_bars}",
            version=digest[:12],
            horizon_bars=about.horizon_bars,
            skill=read_skill(weights, digest),
        )
        # A pass is a millisecond a chart. Threads that wait for one another on a busy machine took 240 ms for eight charts, one
        # thread 7; and one thread gives the same last bits everywhere.
        torch.set_num_threads(1)
        self._device = torch.device(device)
        self._network = network.to(self._device)

    @property
    def spec(self) -> ChartSpec:
        """Return the images that it was trained on."""
        return self._spec

    @property
    def horizon_bars(self) -> int:
        """Return how many bars ahead it forecasts."""
        return self._horizon_bars

    @property
    def detector(self) -> Detector:
        """Return its name, with bars and horizon, the first 12 digits of its weights' hash, and its skill as evaluated."""
        return self._detector

    def p_up(self, images: Pixels) -> Floats:
        """Return probabilities (n,) for images (n, height, width) of 0 and 255."""
        with torch.inference_mode():
            batch = torch.from_numpy(images).to(self._device).unsqueeze(1).to(torch.float32) / 255
            odds = torch.sigmoid(self._network(batch))
        return np.asarray(odds.cpu().numpy(), dtype=np.float64)
