"""The chart network in torch, which trains it, and runs it on a GPU.

Only `services.vision.loading` and the command `aquiline vision train` import modules that import torch, and only when asked.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from services.vision.architecture import BLOCKS, FEATURES, KERNEL, LEAK, POOL_ROWS
from services.vision.weights import Tensors, Weights

_DROPOUT: Final = 0.5


class ChartNetwork(nn.Module):
    """One logit for each image; above 0 the model expects the market to be higher after its horizon.

    Source: Jiang, Kelly, Xiu (2023), section II and figure 3: convolution, batch norm, leaky ReLU and max-pooling three times, dropout
    before the linear layer. Theirs has two outputs under a softmax, which is the same as one logit.
    """

    def __init__(self, *, normalized: bool) -> None:
        """Build it with batch norm for training (`normalized`), or without, as `folded` returns it."""
        super().__init__()
        modules: list[nn.Module] = []
        for block in BLOCKS:
            modules += [
                nn.Conv2d(
                    block.channels_in,
                    block.channels,
                    KERNEL,
                    stride=(block.stride_rows, 1),
                    dilation=(block.dilation_rows, 1),
                    padding=(block.padding_rows, 1),
                ),
                nn.BatchNorm2d(block.channels) if normalized else nn.Identity(),
                nn.LeakyReLU(LEAK),
                nn.MaxPool2d((POOL_ROWS, 1)),
            ]
        self.blocks = nn.Sequential(*modules)
        self.dropout = nn.Dropout(_DROPOUT)
        channels, rows, columns = FEATURES
        self.linear = nn.Linear(channels * rows * columns, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (batch,) of images (batch, 1, 64, 60) of 0.0 and 1.0."""
        logits: Tensor = self.linear(self.dropout(self.blocks(images).flatten(1)))
        return logits.squeeze(1)


def from_weights(weights: Weights) -> ChartNetwork:
    """Return the network with these weights, in evaluation mode."""
    network = ChartNetwork(normalized=False)
    network.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in weights.tensors.items()})
    return network.eval()


def to_tensors(network: ChartNetwork) -> Tensors:
    """Return the network's tensors by name, as `encode_weights` takes them."""
    return {name: tensor.detach().cpu().to(torch.float32).numpy() for name, tensor in network.state_dict().items()}


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
