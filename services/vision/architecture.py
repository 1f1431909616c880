"""The chart network's layers as data, for the code that trains it and the code that serves it.

Source: Jiang, Kelly, Xiu (2023), section II and figure 3, the network for 20 bars.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

IMAGE: Final = (64, 60)
"""Height and width of the image of 20 bars."""
KERNEL: Final = (5, 3)
LEAK: Final = 0.01
"""Slope of the leaky ReLU below 0."""
POOL_ROWS: Final = 2


@dataclass(frozen=True, slots=True)
class Block:
    """A convolution, then leaky ReLU, then max-pooling over two rows. Columns have stride 1, dilation 1 and padding 1."""

    channels_in: int
    channels: int
    stride_rows: int = 1
    dilation_rows: int = 1
    padding_rows: int = 2


BLOCKS: Final = (Block(1, 16, stride_rows=3, dilation_rows=2, padding_rows=12), Block(16, 32), Block(32, 64))
"""The first skips rows, as a chart's rows are sparse. Channels are a quarter of the paper's 64, 128 and 256, and weights 50 K in place of
709 K: there are some 13 K windows to learn from here."""

FEATURES: Final = (BLOCKS[-1].channels, 3, IMAGE[1])
"""What reaches the linear layer: channels, rows, columns."""


def tensor_shapes() -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of the weights file, by name."""
    shapes: dict[str, tuple[int, ...]] = {}
    for index, block in enumerate(BLOCKS):
        weight, bias = block_tensors(index)
        shapes[weight] = (block.channels, block.channels_in, *KERNEL)
        shapes[bias] = (block.channels,)
    channels, rows, columns = FEATURES
    return shapes | {"linear.weight": (1, channels * rows * columns), "linear.bias": (1,)}


def block_tensors(index: int) -> tuple[str, str]:
    """Return the names of a block's weight and bias: four modules of the torch network make a block."""
    return f"blocks.{4 * index}.weight", f"blocks.{4 * index}.bias"
