"""LoRA adapters as peft writes them, read with numpy alone: small changes to a model's weights, added to them when they are written."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from services.inference.local.checksums import CHECKSUMS, damaged_file

WEIGHTS: Final = "adapter_model.safetensors"
CONFIG: Final = "adapter_config.json"
"""The files of an adapter's folder."""

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


_FLOATS: Final = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}
_NOT_PLAIN: Final = ("bias", "use_dora", "modules_to_save", "fan_in_fan_out", "rank_pattern", "alpha_pattern", "trainable_token_indices")
"""Settings of peft under which an adapter is more than, or another than, the product of two matrices."""


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

    Raises AdapterError for a folder that is none, is damaged, or is of a kind that is more than a change of weights.
    """
    try:
        from safetensors import SafetensorError, deserialize  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise AdapterError(f"reading an adapter needs safetensors ({error}): pip install 'aquiline[local]'") from error
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        stored = dict(deserialize((folder / WEIGHTS).read_bytes()))  # type: ignore[no-untyped-call]
        damaged = damaged_file(folder)
    except (OSError, ValueError, SafetensorError) as error:
        raise AdapterError(f"{folder} holds no adapter: {error}; `aquiline model tune` writes one") from error
    if damaged is not None:
        raise AdapterError(
            f"{damaged} differs from its checksum in {CHECKSUMS}: it is damaged or was changed; copy or train the adapter again"
        )
    rank, scale = _rank_and_scale(folder, config)
    tensors = {name: _matrix(folder, name, tensor) for name, tensor in stored.items()}
    loras = {}
    for name in tensors:
        stem = name.removesuffix(_DOWN).removesuffix(_UP)
        if stem == name or not {stem + _DOWN, stem + _UP} <= tensors.keys():
            raise AdapterError(f"{folder} holds {name}, which is no half of a LoRA pair; only plain LoRA adapters are merged")
        up, down = tensors[stem + _UP], tensors[stem + _DOWN]
        if not up.shape[1] == down.shape[0] == rank:
            raise AdapterError(
                f"{folder}: {name} belongs to a change of rank {down.shape[0]}, and {CONFIG} says r = {rank}: "
                "the files are of two adapters; copy or train the adapter again"
            )
        loras[f"{stem.removeprefix(_PREFIX)}.weight"] = Lora(up, down, scale)
    if not loras:
        raise AdapterError(f"{folder} holds no LoRA weights")
    return loras


def _rank_and_scale(folder: Path, config: Any) -> tuple[int, float]:
    """Return the rank, and what the product of a pair is multiplied by; raise AdapterError for anything but plain LoRA."""
    if not isinstance(config, dict):
        raise AdapterError(f"{folder / CONFIG} holds no settings of an adapter; `aquiline model tune` writes one")
    if config.get("peft_type") != "LORA":
        raise AdapterError(f"{folder} is no plain LoRA adapter (peft_type {config.get('peft_type')!r}); only those are merged")
    for name in _NOT_PLAIN:
        if config.get(name) not in (None, False, "none", {}, []):
            raise AdapterError(f"{folder} is no plain LoRA adapter ({name} is {config[name]!r}); only those are merged")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise AdapterError(
            f"{folder / CONFIG} has r {rank!r} and lora_alpha {alpha!r}; expected a whole number of at least 1, and a number"
        )
    return rank, alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _matrix(folder: Path, name: str, tensor: Mapping[str, Any]) -> Matrix:
    """Return a stored tensor as float32; raise AdapterError where it is no matrix of finite numbers."""
    data, kind = tensor["data"], tensor["dtype"]
    if kind == "BF16":  # numpy has none: its bits are the upper half of a float32's
        values = (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    elif kind in _FLOATS:
        values = np.frombuffer(data, _FLOATS[kind])
    else:
        raise AdapterError(f"{folder}: {name} is stored as {kind}; expected one of BF16, {', '.join(_FLOATS)}")
    if len(tensor["shape"]) != len(("rows", "columns")) or not np.isfinite(values).all():
        raise AdapterError(f"{folder}: {name} is no matrix of finite numbers: the adapter is damaged, or its training diverged")
    return values.reshape(tensor["shape"]).astype(np.float32)
