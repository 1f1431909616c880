"""Model folders for the launcher's tests: real shapes, no weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TARGET: dict[str, Any] = {
    "architectures": ["MiniCPMForCausalLM"],
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 2,
    "intermediate_size": 16_384,
    "vocab_size": 73_448,
    "max_position_embeddings": 65_536,
    "scale_emb": 12,
    "scale_depth": 1.4,
    "dim_model_base": 256,
}
DRAFT: dict[str, Any] = {
    "architectures": ["LlamaForCausalLMEagle3"],
    "hidden_size": 4096,
    "num_hidden_layers": 1,
    "num_attention_heads": 32,
    "num_key_value_heads": 2,
    "intermediate_size": 16_384,
    "vocab_size": 73_448,
    "draft_vocab_size": 32_000,
    "max_position_embeddings": 65_536,
}


def folder(path: Path, config: dict[str, Any], *, weights: bool = True, tokenizer: bool = True) -> Path:
    """Write a model's folder; its weight file says its size without taking the room."""
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config))
    if weights:
        with (path / "model.safetensors").open("wb") as file:
            file.truncate(16_360_000_000 if "scale_emb" in config else 880_000_000)
    if tokenizer:
        (path / "tokenizer.json").write_text("{}")
    return path
