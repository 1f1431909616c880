"""The local engine's weights with an adapter are those that merging it into the checkpoint gives, but for their quantization."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from services.inference.local.weights import LocalEngineError, adapted
from services.training.model_folder import from_gguf, merge, tensor_of
from tests.integration.inference.local import weights

NAMES = ("model.layers.0.self_attn.q_proj", "model.layers.7.self_attn.k_proj", "model.layers.29.mlp.down_proj")


def _adapter(folder: Path, names: tuple[str, ...], shapes: dict[str, tuple[int, int]]) -> Path:
    folder.mkdir()
    generator = torch.Generator().manual_seed(5)
    tensors = {}
    for name in names:
        rows, columns = shapes[name]
        tensors[f"base_model.model.{name}.lora_A.weight"] = torch.randn(4, columns, generator=generator)
        tensors[f"base_model.model.{name}.lora_B.weight"] = torch.randn(rows, 4, generator=generator) * 0.1
    save_file(tensors, str(folder / "adapter_model.safetensors"))
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8}))
    return folder


def test_an_adapter_is_added_before_the_weights_are_quantized(tmp_path: Path) -> None:
    stored = weights()
    original = next(stored.gguf.parent.glob("*.Q4_1.gguf"))
    for name in (original.name, stored.gguf.name):
        (tmp_path / name).symlink_to(stored.gguf.parent / name)
    own = stored.model_copy(update={"gguf": tmp_path / stored.gguf.name})
    from_gguf(original, tmp_path / "base")
    shapes: dict[str, tuple[int, int]] = {name: tuple(tensor_of(tmp_path / "base", f"{name}.weight").shape) for name in NAMES}  # type: ignore[misc]
    adapter = _adapter(tmp_path / "adapter", NAMES, shapes)
    said: list[str] = []
    made = adapted(own, adapter, said.append)
    assert adapted(own, adapter, said.append) == made
    assert len(said) == 1
    merge(tmp_path / "base", adapter, tmp_path / "merged")
    from_gguf(made.gguf, tmp_path / "back")
    for name in (*NAMES, "model.layers.3.mlp.up_proj"):
        expected = tensor_of(tmp_path / "merged", f"{name}.weight").float()
        actual = tensor_of(tmp_path / "back", f"{name}.weight").float()
        # Q8_0 keeps 1 of 127 of a block's largest value.
        assert (actual - expected).abs().max() < 0.02 * expected.abs().max()
    wrong = _adapter(tmp_path / "wrong", ("model.layers.31.mlp.down_proj",), {"model.layers.31.mlp.down_proj": (576, 1536)})
    with pytest.raises(LocalEngineError, match=r"layers\.31.*another model"):
        adapted(own, wrong, said.append)
