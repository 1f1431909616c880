"""What the folders of target and draft say: the few fields of `config.json` that decide whether the two can be served together."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.inference.launcher.presets import LaunchError

_LINEAR = "lightning-attn"
_ELEMENT_BYTES = 2
"""Weights are served as bfloat16."""


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model's folder. `weight_bytes` is the size of its weight files, 0 when it holds none (then `computed_bytes` stands in)."""

    path: Path
    architecture: str
    hidden_size: int
    layers: int
    kv_layers: int
    """Layers that keep keys and values of each token; linear ones keep a state of one size."""
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    draft_vocab_size: int | None
    max_position_embeddings: int
    scale_emb: float | None
    """MiniCPM's; None for a plain Llama."""
    target_hidden_size: int | None
    aux_layers: int
    """Target layers that a draft reads."""
    rope_theta: float
    rope_scaling: dict[str, Any] | None
    """As `config.json` has it: `rope_type` with its factors; None for plain rotary positions."""
    quantization: str | None
    """Method of a checkpoint whose weights are stored quantized (`gptq`, `awq`, `fp8`, ...); None for bfloat16 or float16."""
    quantization_bits: int | None
    weight_bytes: int
    has_tokenizer: bool

    @property
    def is_hybrid(self) -> bool:
        """Return whether some layers attend linearly, as MiniCPM-SALA's do."""
        return self.kv_layers < self.layers

    @property
    def computed_bytes(self) -> int:
        """Return the weights' size, computed from the shape: bfloat16, or the bits of a quantized checkpoint's layers."""
        attention = self.hidden_size * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        mlp = 3 * self.hidden_size * self.intermediate_size
        if self.draft_vocab_size is None:
            # Embedding and head stay in bfloat16; scales and zero points of a group of 128 add some 3 % to 4 bits.
            layer_bytes = _ELEMENT_BYTES if self.quantization_bits is None else self.quantization_bits / 8 * 1.03
            return int(layer_bytes * self.layers * (attention + mlp)) + _ELEMENT_BYTES * 2 * self.vocab_size * self.hidden_size
        read_twice = self.hidden_size * self.head_dim * (self.heads + 2 * self.kv_heads)
        fc = (self.target_hidden_size or self.hidden_size) * self.aux_layers * self.hidden_size
        head = self.draft_vocab_size * self.hidden_size
        return _ELEMENT_BYTES * (self.layers * (attention + mlp) + read_twice + fc + head)

    @property
    def bytes_on_card(self) -> int:
        """Return the size of the weights on the GPU."""
        return self.weight_bytes or self.computed_bytes

    def kv_bytes_a_token(self, element_bytes: int) -> int:
        """Return the KV cache's size for one token."""
        return 2 * self.kv_layers * self.kv_heads * self.head_dim * element_bytes


def read(path: Path, *, what: str) -> ModelFolder:
    """Return what the folder says; raise LaunchError. `what` is `model` or `draft`, for the message."""
    file = path / "config.json"
    if not path.is_dir():
        raise LaunchError(f"the {what}'s folder {str(path)!r} does not exist; download it first, or give --{what}-path")
    if not file.is_file():
        inside = sorted(child.parent.name for child in path.glob("*/config.json"))
        hint = f"; did you mean its subfolder {inside[0]!r}?" if inside else "; is the download complete?"
        raise LaunchError(f"the {what}'s folder {str(path)!r} holds no config.json{hint}")
    try:
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
        eagle = config.get("eagle_config") or {}
        quantized = config.get("quantization_config") or {}
        layers = int(config["num_hidden_layers"])
        linear = sum(kind == _LINEAR for kind in config.get("mixer_types") or ())
        return ModelFolder(
            path=path,
            architecture=str(config["architectures"][0]),
            hidden_size=hidden,
            layers=layers,
            kv_layers=layers - linear,
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or hidden // heads),
            intermediate_size=int(config["intermediate_size"]),
            vocab_size=int(config["vocab_size"]),
            draft_vocab_size=None if config.get("draft_vocab_size") is None else int(config["draft_vocab_size"]),
            max_position_embeddings=int(config["max_position_embeddings"]),
            scale_emb=None if config.get("scale_emb") is None else float(config["scale_emb"]),
            target_hidden_size=None if config.get("target_hidden_size") is None else int(config["target_hidden_size"]),
            rope_theta=float(config.get("rope_theta") or 10_000.0),
            rope_scaling=config.get("rope_scaling"),
            quantization=None if not quantized else str(quantized.get("quant_method", "unknown")).lower(),
            quantization_bits=None if quantized.get("bits") is None else int(quantized["bits"]),
            aux_layers=len(eagle.get("eagle_aux_hidden_state_layer_ids") or (0, 0, 0)),
            weight_bytes=sum(weights.stat().st_size for pattern in ("*.safetensors", "*.bin", "*.pt") for weights in path.glob(pattern)),
            has_tokenizer=any((path / name).is_file() for name in ("tokenizer.json", "tokenizer.model")),
        )
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise LaunchError(f"{str(file)!r} cannot be used: {type(error).__name__} {error}") from error
