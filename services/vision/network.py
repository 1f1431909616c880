"""The chart network in torch: three blocks of convolution over the 64 by 60 image and one linear layer, after Jiang, Kelly and Xiu.

Only `services.vision.loading` imports modules that import torch, and only when asked.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

CHANNELS: Final = (16, 32, 64)
"""A quarter of the paper's 64, 128 and 256, and 50 K weights in place of 709 K: there are some 13 K windows to learn from here."""

_KERNEL: Final = (5, 3)
_LEAK: Final = 0.01


class ChartNetwork(nn.Module):
    """One logit for each image; above 0 the model expects the market to be higher after its horizon.

    Source: Jiang, Kelly, Xiu (2023), section II and figure 3, the network for 20 bars: 5 by 3 convolutions, the first with
    a vertical stride of 3 and dilation of 2 as its rows are sparse, batch norm, leaky ReLU of 0.01, 2 by 1 max-pooling, dropout of
    a half before the linear layer. Theirs has two outputs under a softmax, which is the same as one logit.
    """

    def __init__(self, *, normalized: bool) -> None:
        """Build it with batch norm for training (`normalized`), or without, as `folded` returns it."""
        super().__init__()
        blocks: list[nn.Module] = []
        before = 1
        for index, channels in enumerate(CHANNELS):
            first = index == 0
            blocks += [
                nn.Conv2d(
                    before,
                    channels,
                    _KERNEL,
                    stride=(3, 1) if first else (1, 1),
                    dilation=(2, 1) if first else (1, 1),
                    padding=(12, 1) if first else (2, 1),
                ),
                nn.BatchNorm2d(channels) if normalized else nn.Identity(),
                nn.LeakyReLU(_LEAK),
                nn.MaxPool2d((2, 1)),
            ]
            before = channels
        self.blocks = nn.Sequential(*blocks)
        self.dropout = nn.Dropout(0.5)
        self.linear = nn.Linear(CHANNELS[-1] * 3 * 60, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (batch,) of images (batch, 1, 64, 60) of 0.0 and 1.0."""
        logits: Tensor = self.linear(self.dropout(self.blocks(images).flatten(1)))
        return logits.squeeze(1)


def folded(trained: ChartNetwork, *, scale: float, shift: float) -> ChartNetwork:
    """Return the same function without batch norm, which is folded into the convolutions, its logit times `scale` plus `shift`."""
    network = ChartNetwork(normalized=False)
    with torch.no_grad():
        for source, norm, target in zip(trained.blocks[0::4], trained.blocks[1::4], network.blocks[0::4], strict=True):
            if not (isinstance(source, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and isinstance(target, nn.Conv2d)):
                raise TypeError(f"a block starts with {source} and {norm}; expected a convolution and its batch norm")
            if norm.running_var is None or norm.running_mean is None or source.bias is None or target.bias is None:
                raise TypeError("a block has no running statistics or no bias to fold")
            gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            target.weight.copy_(source.weight * gain[:, None, None, None])
            target.bias.copy_((source.bias - norm.running_mean) * gain + norm.bias)
        network.linear.weight.copy_(trained.linear.weight * scale)
        network.linear.bias.copy_(trained.linear.bias * scale + shift)
    return network.eval()
