"""A tiny random model and shortened examples, on which `--dry-run` shows that every step of a training runs, in seconds on a CPU."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from safetensors.torch import save_file

from services.training.examples import Example

_TOKENS: Final = 192
_EXAMPLES: Final = 6


@contextmanager
def dry_run_folder(out: Path) -> Iterator[Path]:
    """Yield a new folder in `out`, so that a dry run shows that this can be written, and delete it; what `out` holds stays as it is."""
    new = not out.exists()
    folder = out / "dry-run"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if new:
            out.rmdir()


def dry_examples(examples: Sequence[Example]) -> list[Example]:
    """Return the first few examples, each cut to its last tokens, which hold what is taught."""
    cut = slice(-_TOKENS, None)
    return [replace(one, ids=one.ids[cut], taught=one.taught[cut], decision=one.decision[cut]) for one in examples[:_EXAMPLES]]


def tiny_model(folder: Path, examples: Sequence[Example], *, layers: int = 8, hidden: int = 32, vocab_size: int | None = None) -> Path:
    """Write a random Llama with a vocabulary that holds the examples' ids, and return its folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    vocabulary = vocab_size or 1 + max(int(np.max(one.ids)) for one in examples)
    heads, kv_heads, middle = 4, 2, 3 * hidden
    generator = torch.Generator().manual_seed(7)

    def random(*shape: int) -> torch.Tensor:
        return (torch.randn(*shape, generator=generator) * 0.1).bfloat16()

    size = hidden // heads
    tensors = {"model.embed_tokens.weight": random(vocabulary, hidden), "model.norm.weight": torch.ones(hidden).bfloat16()}
    for layer in range(layers):
        name = f"model.layers.{layer}."
        tensors |= {
            name + "self_attn.q_proj.weight": random(heads * size, hidden),
            name + "self_attn.k_proj.weight": random(kv_heads * size, hidden),
            name + "self_attn.v_proj.weight": random(kv_heads * size, hidden),
            name + "self_attn.o_proj.weight": random(hidden, heads * size),
            name + "mlp.gate_proj.weight": random(middle, hidden),
            name + "mlp.up_proj.weight": random(middle, hidden),
            name + "mlp.down_proj.weight": random(hidden, middle),
            name + "input_layernorm.weight": torch.ones(hidden).bfloat16(),
            name + "post_attention_layernorm.weight": torch.ones(hidden).bfloat16(),
        }
    save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": size,
        "intermediate_size": middle,
        "vocab_size": vocabulary,
        "max_position_embeddings": 8_192,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "eos_token_id": 2,
        "bos_token_id": 1,
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder
