"""The chart network as a forecaster on the CPU, in numpy alone: torch's CUDA build takes gigabytes, and is slower on one core."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from schemas import Detector
from services.vision.architecture import BLOCKS, FEATURES, KERNEL, LEAK, POOL_ROWS, Block, block_tensors
from services.vision.render import ChartSpec, Floats, Pixels
from services.vision.weights import Weights

_WHITE: Final = np.float32(255)


class NumpyForecaster:
    """Implements `services.vision.forecaster.Forecaster`. An image gives the same bits alone and in any batch."""

    def __init__(self, weights: Weights, detector: Detector) -> None:
        """Set numpy's matrix products to one thread for this process."""
        # Threads that waited for one another on a busy machine took 240 ms for eight charts in torch, one thread 7.
        threadpool_limits(limits=1, user_api="blas")
        self.spec: ChartSpec = weights.spec
        self.horizon_bars = weights.about.horizon_bars
        self.detector = detector
        self._blocks = [(block, *_as_matrix(weights, index)) for index, block in enumerate(BLOCKS)]
        channels_last = weights.tensors["linear.weight"].reshape(FEATURES).transpose(1, 2, 0)
        self._linear = np.ascontiguousarray(channels_last).ravel()
        self._shift = weights.tensors["linear.bias"][0]

    def p_up(self, images: Pixels) -> Floats:
        """Return probabilities (n,) for images (n, height, width) of 0 and 255."""
        logits = np.array([self._logit(image) for image in images], dtype=np.float64)
        return np.asarray(1 / (1 + np.exp(-logits)), dtype=np.float64)

    def _logit(self, image: NDArray[np.uint8]) -> np.float32:
        # One image at a time: its windows stay in the processor's cache. A batch of 64 took twice as long an image.
        values = image[:, :, None].astype(np.float32) / _WHITE
        for block, matrix, bias in self._blocks:
            values = _apply(block, matrix, bias, values)
        logit: np.float32 = values.ravel() @ self._linear + self._shift
        return logit


def _as_matrix(weights: Weights, index: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return a block's weights as (rows * columns * channels in, channels) and its bias."""
    weight, bias = (weights.tensors[name] for name in block_tensors(index))
    return np.ascontiguousarray(weight.transpose(2, 3, 1, 0).reshape(-1, len(bias))), bias


def _apply(block: Block, matrix: NDArray[np.float32], bias: NDArray[np.float32], values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a block's output (rows, columns, channels) for `values` (rows, columns, channels in): one product with every window."""
    columns = values.shape[1]
    kernel_rows, kernel_columns = KERNEL
    padded = np.pad(values, ((block.padding_rows, block.padding_rows), (1, 1), (0, 0)))
    span = block.dilation_rows * (kernel_rows - 1) + 1
    flat = padded.reshape(len(padded), -1)
    windows = sliding_window_view(flat, (span, kernel_columns * block.channels_in))
    windows = windows[:: block.stride_rows, :: block.channels_in, :: block.dilation_rows]
    products = (windows.reshape(-1, len(matrix)) @ matrix).reshape(-1, columns, block.channels)
    whole = len(products) // POOL_ROWS * POOL_ROWS
    # Bias and leaky ReLU keep the order of values, so pooling may come before them, and halves their work.
    pooled: NDArray[np.float32] = np.maximum(products[0:whole:POOL_ROWS], products[1:whole:POOL_ROWS])
    pooled += bias
    np.maximum(pooled, pooled * np.float32(LEAK), out=pooled)
    return pooled
