"""LoRA adapters as peft writes them, read with numpy alone: small changes to a model's weights, added to them when they are written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

_PREFIX: Final = "base_model.model."
_DOWN: Final = ".lora_A.weight"
_UP: Final = ".lora_B.weight"

LAYER_NAMES: Final = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
"""GGUF's names of a Llama layer's tensors, and those of a checkpoint."""

Matrix = NDArray[np.float32]


class AdapterError(Exception):
    """The adapter cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class Lora:
    """The change of one weight (rows, columns): `scale * up @ down`, of shapes (rows, rank) and (rank, columns)."""

    up: Matrix
    down: Matrix
    scale: float

    def change(self) -> Matrix:
        """Return what is added to the weight."""
        change: Matrix = np.float32(self.scale) * (self.up @ self.down)
        return change


def checkpoint_name(name: str) -> str:
    """Return the name in a checkpoint of GGUF's tensor `blk.3.attn_q.weight`; the name itself for one that is in no layer."""
    parts = name.split(".")
    if len(parts) != len(("blk", "layer", "kind", "weight")) or parts[2] not in LAYER_NAMES:
        return name
    return f"model.layers.{parts[1]}.{LAYER_NAMES[parts[2]]}.weight"


def lora_of(folder: Path) -> dict[str, Lora]:
    """Return the changes of an adapter's folder by the name of the weight, such as `model.layers.0.mlp.up_proj.weight`.

    Raises AdapterError for a folder that is none, or of a kind that is more than a change of weights.
    """
    try:
        from safetensors.numpy import load_file  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise AdapterError(f"reading an adapter needs safetensors ({error}): pip install 'aquiline[local]'") from error
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        tensors = load_file(str(folder / "adapter_model.safetensors"))
    except (OSError, ValueError) as error:
        raise AdapterError(f"{folder} holds no adapter: {error}; `aquiline model tune` writes one") from error
    if config.get("peft_type") != "LORA" or config.get("bias", "none") != "none" or config.get("use_dora") or config.get("modules_to_save"):
        raise AdapterError(f"{folder} is no plain LoRA adapter (peft_type {config.get('peft_type')!r}); only those are merged")
    rank = config["r"]
    scale = config["lora_alpha"] / (rank**0.5 if config.get("use_rslora") else rank)
    loras = {}
    for name, tensor in tensors.items():
        if name.endswith(_DOWN):
            weight = name.removeprefix(_PREFIX).removesuffix(_DOWN)
            up = tensors[name.removesuffix(_DOWN) + _UP]
            loras[f"{weight}.weight"] = Lora(up.astype(np.float32), tensor.astype(np.float32), scale)
    if not loras:
        raise AdapterError(f"{folder} holds no LoRA weights")
    return loras
