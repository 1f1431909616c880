"""The converted model, run as a Llama, gives the logits of the original."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from services.inference import convert
from tests.unit.inference_engine.minicpm import PlainMiniCPM


def write_model(model: PlainMiniCPM, folder: Path, *, shards: int) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(model.config))
    (folder / "tokenizer.json").write_text("{}")
    names = sorted(model.weights)
    for shard in range(shards):
        part = {name: model.weights[name] for name in names[shard::shards]}
        name = "model.safetensors" if shards == 1 else f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        save_file(part, str(folder / name))


@pytest.mark.parametrize(("shards", "tied"), [(1, False), (3, False), (2, True)])
def test_logits_are_the_same_in_llama_s_form(tmp_path: Path, shards: int, tied: bool) -> None:  # noqa: FBT001 - a parameter
    model = PlainMiniCPM.random(11)
    if tied:
        model.config["tie_word_embeddings"] = True
        model.weights["lm_head.weight"] = model.weights["model.embed_tokens.weight"]
        stored = PlainMiniCPM(model.config, {name: w for name, w in model.weights.items() if name != "lm_head.weight"})
    else:
        stored = model
    write_model(stored, tmp_path / "minicpm", shards=shards)
    scaled = convert.convert(tmp_path / "minicpm", tmp_path / "llama")
    assert scaled == 2 + 2 * 6
    config = json.loads((tmp_path / "llama" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert not {"scale_emb", "scale_depth", "dim_model_base", "auto_map", "tie_word_embeddings"} & {k for k, v in config.items() if v}
    # A MiniCPM whose scales are all 1 is a Llama.
    llama = PlainMiniCPM(config | {"scale_emb": 1, "scale_depth": 6**0.5, "dim_model_base": config["hidden_size"]})
    for file in (tmp_path / "llama").glob("*.safetensors"):
        llama.weights |= load_file(file)
    ids = torch.arange(23) * 5 % 97
    torch.testing.assert_close(llama.logits(ids), model.logits(ids), rtol=1e-4, atol=1e-4)
    assert (tmp_path / "llama" / "tokenizer.json").is_file()
    assert (tmp_path / "llama" / "model.safetensors.index.json").is_file() == (shards > 1)


def test_other_tensors_keep_their_bits_and_their_type(tmp_path: Path) -> None:
    model = PlainMiniCPM.random(5)
    model.weights = {name: weight.bfloat16() for name, weight in model.weights.items()}
    write_model(model, tmp_path / "minicpm", shards=1)
    convert.convert(tmp_path / "minicpm", tmp_path / "llama")
    written = load_file(tmp_path / "llama" / "model.safetensors")
    assert set(written) == set(model.weights)
    for name, weight in model.weights.items():
        assert written[name].dtype == torch.bfloat16
        if convert.factor(name, model.config) == 1.0:
            assert torch.equal(written[name], weight)


def test_what_is_no_minicpm_is_refused_with_a_sentence(tmp_path: Path) -> None:
    model = PlainMiniCPM.random(1)
    write_model(model, tmp_path / "minicpm", shards=1)
    (tmp_path / "there").mkdir()
    with pytest.raises(convert.ConvertError, match="exists"):
        convert.convert(tmp_path / "minicpm", tmp_path / "there")
    with pytest.raises(convert.ConvertError, match=r"config\.json cannot be read"):
        convert.convert(tmp_path / "there", tmp_path / "llama")
    with pytest.raises(convert.ConvertError, match="only \\['MiniCPMForCausalLM'\\]"):
        convert.llama_config(model.config | {"architectures": ["LlamaForCausalLM"]})
    with pytest.raises(convert.ConvertError, match="8 experts"):
        convert.llama_config(model.config | {"num_experts": 8})
    with pytest.raises(convert.ConvertError, match="stored quantized \\(gptq\\)"):
        convert.llama_config(model.config | {"quantization_config": {"quant_method": "gptq", "bits": 4}})
    with pytest.raises(convert.ConvertError, match="lacks scale_depth"):
        convert.llama_config({key: value for key, value in model.config.items() if key != "scale_depth"})
    packed = PlainMiniCPM.random(1)
    packed.weights["model.layers.0.self_attn.q_proj.qweight"] = torch.ones(4, 4, dtype=torch.int32)
    write_model(packed, tmp_path / "packed", shards=1)
    with pytest.raises(convert.ConvertError, match=r"qweight is stored as torch\.int32"):
        convert.convert(tmp_path / "packed", tmp_path / "llama")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["minicpm", "packed", "there"]
