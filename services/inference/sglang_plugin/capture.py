"""How the hidden states that an EAGLE3 draft reads are taken from the target: torch alone, no SGLang.

Kept apart from the model class, so that it is tested against a plain model on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch


def run_layers(
    layers: Sequence[Any],
    call: Callable[[Any, torch.Tensor], torch.Tensor],
    hidden: torch.Tensor,
    capture_before: Collection[int],
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Pass `hidden` (tokens, width) through `layers` and return the last hidden state and the captured ones, in layer order.

    `call(layer, hidden)` runs one layer. MiniCPM's layers add their residual themselves and return a fresh tensor, so what is
    kept needs no copy.
    """
    captured: list[torch.Tensor] = []
    for index, layer in enumerate(layers):
        if index in capture_before:
            captured.append(hidden)
        hidden = call(layer, hidden)
    return hidden, captured
