"""Which hidden states of the target an EAGLE3 draft reads, and how they are taken: torch alone, no SGLang.

Kept apart from the model class, so that it is tested against a plain model on a CPU.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch

AUX_SCALE_VARIABLE = "MINICPM_EAGLE3_AUX_SCALE"
"""Environment variable of the engine's process: what the captured states are multiplied by.

Absent, empty or `1`: as they are. `residual`: by scale_depth / sqrt(layers), which is 0.2475 for MiniCPM4.1-8B and what CPM.cu does.
Anything else: that number. Embedding and fc output pass an RMS norm inside the draft, so the scale only changes the weight of
the residual stream: try both on real weights and keep the one with the longer acceptance.
"""


def layers_to_capture(num_layers: int, draft_layer_ids: Sequence[int] | None) -> tuple[int, ...]:
    """Return the layers before which the hidden state is kept, ascending.

    `draft_layer_ids` are the ids that the draft's `eagle_config` names; the output of layer n is the input of layer n + 1, so each
    is raised by one. None: layers 2, L // 2 and L - 3, as SGLang does for Llama. Raises ValueError for ids that the model lacks.
    """
    wanted = [2, num_layers // 2, num_layers - 3] if draft_layer_ids is None else [layer + 1 for layer in draft_layer_ids]
    if sorted(set(wanted)) != wanted or wanted[0] < 0 or wanted[-1] >= num_layers:
        raise ValueError(
            f"EAGLE3 cannot capture before layers {wanted}: they must ascend and lie within the target's {num_layers} layers; "
            f"check eagle_aux_hidden_state_layer_ids in the draft's config.json (here {draft_layer_ids})"
        )
    return tuple(wanted)


def aux_scale(scale_depth: float, num_layers: int, environment: Mapping[str, str] = os.environ) -> float:
    """Return what captured states are multiplied by, from `AUX_SCALE_VARIABLE`; raise ValueError when it is no usable number."""
    text = environment.get(AUX_SCALE_VARIABLE, "").strip()
    if not text:
        return 1.0
    if text == "residual":
        return scale_depth / math.sqrt(num_layers)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value <= 0:
        raise ValueError(f"{AUX_SCALE_VARIABLE} is {text!r}; it must be 'residual' or a number above 0")
    return value


def run_layers(
    layers: Sequence[Any],
    call: Callable[[Any, torch.Tensor], torch.Tensor],
    hidden: torch.Tensor,
    capture_before: Collection[int],
    scale: float,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Pass `hidden` (tokens, width) through `layers` and return the last hidden state and the captured ones, in layer order.

    `call(layer, hidden)` runs one layer. MiniCPM's layers add their residual themselves and return a fresh tensor, so what is
    kept needs no copy.
    """
    captured: list[torch.Tensor] = []
    for index, layer in enumerate(layers):
        if index in capture_before:
            captured.append(hidden if scale == 1.0 else hidden * scale)
        hidden = call(layer, hidden)
    return hidden, captured
