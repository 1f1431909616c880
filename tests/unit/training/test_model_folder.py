"""A model keeps its logits in MiniCPM's form and back, and a merged adapter changes them as the adapter does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from services.inference import convert
from services.inference.local.adapter import AdapterError, lora_of
from services.training.model_files import ModelError
from services.training.model_folder import Scales, _uninterleaved, in_steps, merge, tensor_of, to_minicpm
from services.training.tiny import tiny_model
from tests.unit.inference_engine.minicpm import PlainMiniCPM
from tests.unit.training.build import VOCABULARY, examples

IDS = torch.arange(19) * 5 % VOCABULARY


def _model(folder: Path) -> Path:
    model = tiny_model(folder, examples(1), vocab_size=VOCABULARY)
    # float32, so that what differs is the form and not a rounding.
    tensors = {name: tensor.float() for name, tensor in load_file(model / "model.safetensors").items()}
    save_file(tensors, str(model / "model.safetensors"))
    return model


def _logits(folder: Path) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        logits: torch.Tensor = model(IDS[None]).logits[0]
    return logits


def _adapter(folder: Path, model: Path, *, rank: int = 2) -> Path:
    folder.mkdir()
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for name in ("model.layers.0.self_attn.q_proj", "model.layers.3.mlp.down_proj"):
        rows, columns = tensor_of(model, f"{name}.weight").shape
        tensors[f"base_model.model.{name}.lora_A.weight"] = torch.randn(rank, columns, generator=generator).half()
        tensors[f"base_model.model.{name}.lora_B.weight"] = torch.randn(rows, rank, generator=generator).half()
    save_file(tensors, str(folder / "adapter_model.safetensors"))
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "bias": "none"}))
    return folder


def test_minicpm_s_form_gives_the_same_logits_and_converts_back(tmp_path: Path) -> None:
    model = _model(tmp_path / "llama")
    scaled = to_minicpm(model, tmp_path / "minicpm", Scales(dim_model_base=8))
    assert scaled == 2 + 2 * 8
    config = json.loads((tmp_path / "minicpm" / "config.json").read_text())
    plain = PlainMiniCPM(config, load_file(tmp_path / "minicpm" / "model.safetensors"))
    torch.testing.assert_close(plain.logits(IDS), _logits(model), rtol=1e-4, atol=1e-4)
    convert.convert(tmp_path / "minicpm", tmp_path / "back")
    torch.testing.assert_close(_logits(tmp_path / "back"), _logits(model), rtol=1e-4, atol=1e-4)
    assert (tmp_path / "minicpm" / "configuration_minicpm.py").is_file()


def test_a_merged_adapter_adds_its_change_and_nothing_else(tmp_path: Path) -> None:
    model = _model(tmp_path / "llama")
    adapter = _adapter(tmp_path / "adapter", model)
    assert merge(model, adapter, tmp_path / "merged") == 2
    before, after = load_file(model / "model.safetensors"), load_file(tmp_path / "merged" / "model.safetensors")
    changes = lora_of(adapter)
    for name, tensor in before.items():
        change = torch.from_numpy(changes[name].change()) if name in changes else torch.zeros(())
        torch.testing.assert_close(after[name], tensor + change)


def test_an_adapter_of_another_model_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    model = _model(tmp_path / "llama")
    adapter = _adapter(tmp_path / "adapter", model)
    tensors = load_file(adapter / "adapter_model.safetensors")
    other = {name.replace("layers.3", "layers.33"): tensor for name, tensor in tensors.items()}
    save_file(other, str(adapter / "adapter_model.safetensors"))
    with pytest.raises(ModelError, match=r"layers\.33.*another model"):
        merge(model, adapter, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_what_is_no_plain_lora_is_refused(tmp_path: Path) -> None:
    adapter = _adapter(tmp_path / "adapter", _model(tmp_path / "llama"))
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "IA3"}))
    with pytest.raises(AdapterError, match="IA3"):
        lora_of(adapter)
    with pytest.raises(AdapterError, match="holds no adapter"):
        lora_of(tmp_path)


def test_of_several_steps_only_the_last_folder_stays(tmp_path: Path) -> None:
    model = _model(tmp_path / "llama")
    adapter = _adapter(tmp_path / "adapter", model)
    in_steps(model, tmp_path / "out", [lambda source, target: merge(source, adapter, target), to_minicpm])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "llama", "out"]
    with pytest.raises(ModelError, match="exists"):
        in_steps(model, tmp_path / "out", [to_minicpm])
    with pytest.raises(ModelError, match="only \\['LlamaForCausalLM'\\]"):
        to_minicpm(tmp_path / "out", tmp_path / "twice")


def test_rows_that_gguf_interleaves_are_put_back() -> None:
    heads, rows, columns = 2, 8, 3
    weight = torch.arange(rows * columns).float().view(rows, columns)
    # llama.cpp's own permutation of a Llama's queries and keys.
    interleaved = weight.reshape(heads, 2, rows // heads // 2, columns).transpose(1, 2).reshape(rows, columns)
    assert torch.equal(_uninterleaved(interleaved, heads), weight)
