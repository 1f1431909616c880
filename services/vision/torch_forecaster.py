"""The chart network as a forecaster on a GPU, in torch."""

from __future__ import annotations

import numpy as np
import torch

from schemas import Detector
from services.vision.forecaster import ForecasterError
from services.vision.network import from_weights
from services.vision.render import ChartSpec, Floats, Pixels
from services.vision.weights import Weights


class TorchForecaster:
    """Implements `services.vision.forecaster.Forecaster`."""

    def __init__(self, weights: Weights, detector: Detector, *, device: str = "cuda") -> None:
        """Raise ForecasterError when there is no such device."""
        if device == "cuda" and not torch.cuda.is_available():
            raise ForecasterError(
                "vision.device is 'cuda', and torch finds no such device here; set it to 'cpu', or mend driver and container"
            )
        self.spec: ChartSpec = weights.spec
        self.horizon_bars = weights.about.horizon_bars
        self.detector = detector
        self._device = torch.device(device)
        self._network = from_weights(weights).to(self._device)

    def p_up(self, images: Pixels) -> Floats:
        """Return probabilities (n,) for images (n, height, width) of 0 and 255."""
        with torch.inference_mode():
            batch = torch.from_numpy(images).to(self._device).unsqueeze(1).to(torch.float32) / 255
            odds = torch.sigmoid(self._network(batch))
        return np.asarray(odds.cpu().numpy(), dtype=np.float64)
