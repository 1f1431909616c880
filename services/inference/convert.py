"""MiniCPM4 / 4.1 weights in Llama's form: the scales folded into the weights, so that any engine that knows Llama serves them.

MiniCPM multiplies embeddings by `scale_emb`, each branch's output by `scale_depth / sqrt(layers)` and divides the last hidden state
by `hidden_size / dim_model_base`; everything else is a Llama. Folding is exact but for one rounding to bfloat16 a weight.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

_COPIED = ("tokenizer", "special_tokens_map", "added_tokens", "generation_config", "chat_template", "LICENSE")
_DROPPED = ("auto_map", "scale_emb", "scale_depth", "dim_model_base", "sparse_config", "mup_denominator", "num_experts")


_FOLDED = (torch.float32, torch.float16, torch.bfloat16)


class ConvertError(Exception):
    """The model cannot be converted; the text says why."""


def factor(name: str, config: dict[str, Any]) -> float:
    """Return what the tensor of that name is multiplied by."""
    if name == "model.embed_tokens.weight":
        return float(config["scale_emb"])
    if name == "lm_head.weight":
        return float(config["dim_model_base"]) / float(config["hidden_size"])
    if name.endswith((".self_attn.o_proj.weight", ".mlp.down_proj.weight")):
        return float(config["scale_depth"]) / math.sqrt(float(config["num_hidden_layers"]))
    return 1.0


def llama_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return the `config.json` of the converted model; raise ConvertError for a model that is no dense MiniCPM."""
    if config.get("architectures") != ["MiniCPMForCausalLM"]:
        raise ConvertError(f"architectures is {config.get('architectures')}; only ['MiniCPMForCausalLM'] can be converted")
    if config.get("num_experts"):
        raise ConvertError(f"the model is a mixture of {config['num_experts']} experts, which Llama's form has no place for")
    quantized = config.get("quantization_config")
    if quantized:
        method = quantized.get("quant_method", "an unnamed method")
        raise ConvertError(
            f"the weights are stored quantized ({method}): their scales belong to the numbers as they are, and folding MiniCPM's into "
            "them would ruin both; convert the bfloat16 checkpoint and quantize the result, or serve this one through the plug-in"
        )
    missing = [key for key in ("scale_emb", "scale_depth", "dim_model_base", "hidden_size", "num_hidden_layers") if key not in config]
    if missing:
        raise ConvertError(f"config.json lacks {', '.join(missing)}, without which the scales are not known")
    kept = {key: value for key, value in config.items() if key not in _DROPPED}
    # Tied weights part: the embedding is multiplied, the head is divided.
    return kept | {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "tie_word_embeddings": False}


def convert(source: Path, target: Path, *, progress: Callable[[str], None] = lambda _line: None) -> int:
    """Write the model in `source` to the new folder `target`, shard by shard, and return how many tensors were scaled.

    Holds one shard in memory. Raises ConvertError when `source` is no MiniCPM in safetensors or `target` is there already.
    """
    try:
        config: dict[str, Any] = json.loads((source / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConvertError(f"{source}/config.json cannot be read: {error}") from error
    converted = llama_config(config)
    shards = sorted(source.glob("*.safetensors"))
    if not shards:
        raise ConvertError(f"{source} holds no *.safetensors files; other formats are not converted")
    if target.exists():
        raise ConvertError(f"{target} exists; name a folder that does not, so that nothing is mixed")
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        scaled = _write(partial, shards, config, progress)
        (partial / "config.json").write_text(json.dumps(converted, indent=2), encoding="utf-8")
        for file in source.iterdir():
            if file.name.startswith(_COPIED) and file.is_file():
                shutil.copy2(file, partial / file.name)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    partial.replace(target)
    return scaled


def _write(folder: Path, shards: list[Path], config: dict[str, Any], progress: Callable[[str], None]) -> int:
    """Write the converted shards to `folder`, with their index; return how many tensors were scaled."""
    places: dict[str, str] = {}
    size = scaled = 0
    for number, shard in enumerate(shards, 1):
        tensors, count = _scaled(shard, config)
        save_file(tensors, str(folder / shard.name), metadata={"format": "pt"})
        scaled += count
        places |= dict.fromkeys(tensors, shard.name)
        size += sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        progress(f"{number}/{len(shards)} {shard.name}: {len(tensors)} tensors")
    if len(shards) > 1:
        index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(places.items()))}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
    return scaled


def _scaled(shard: Path, config: dict[str, Any]) -> tuple[dict[str, torch.Tensor], int]:
    """Return the converted tensors of one shard, and how many of them were scaled."""
    tied = bool(config.get("tie_word_embeddings"))
    tensors: dict[str, torch.Tensor] = {}
    scaled = 0
    with safe_open(str(shard), framework="pt") as opened:
        for name in opened.keys():  # noqa: SIM118 - no dict
            if tied and name == "lm_head.weight":
                continue  # made from the embedding
            tensor = opened.get_tensor(name)
            if tensor.dtype not in _FOLDED:
                raise ConvertError(
                    f"{shard.name}: {name} is stored as {tensor.dtype}; only weights in float32, float16 or bfloat16 can be folded"
                )
            tensors[name] = _times(tensor, factor(name, config))
            scaled += factor(name, config) != 1.0
            if tied and name == "model.embed_tokens.weight":
                tensors["lm_head.weight"] = _times(opened.get_tensor(name), factor("lm_head.weight", config))
                scaled += 1
    return tensors, scaled


def _times(tensor: torch.Tensor, by: float) -> torch.Tensor:
    """Return the product, computed in float32 and rounded once."""
    return tensor if by == 1.0 else (tensor.float() * by).to(tensor.dtype)
