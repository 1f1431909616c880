"""Model folders in Llama's form: made of a GGUF file, with an adapter merged in, and written in MiniCPM's form, the inverse of `convert`.

Training works on Llama's form: MiniCPM4.1 gets there by `aquiline engine convert`, and its adapted weights come back by `to_minicpm`.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from services.inference.local.adapter import LAYER_NAMES, AdapterError, Lora, lora_of
from services.inference.local.vocabulary import tokenizer_config, tokenizer_json
from services.inference.minicpm_configuration import CONFIGURATION

_TOP: Final = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


class ModelError(ValueError):
    """The model cannot be read or written; the text says why."""


class Scales(NamedTuple):
    """MiniCPM's scales: of the embedding, of the depth, and the width that its head was made for."""

    scale_emb: float = 12.0
    scale_depth: float = 1.4
    dim_model_base: int = 256


def from_gguf(file: Path, folder: Path) -> None:
    """Write the Llama of a GGUF file as a folder with config, weights in bfloat16 and tokenizer; raise ModelError.

    GGUF interleaves the rows of queries and keys for its rotary embedding; they are put back.
    """
    try:
        import gguf  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ModelError(f"reading {file.name} needs gguf ({error}): pip install 'aquiline[train]'") from error
    reader = gguf.GGUFReader(file)
    if reader.fields["general.architecture"].contents() != "llama":
        raise ModelError(
            f"{file} holds no Llama, but {reader.fields['general.architecture'].contents()}; only Llama's form is trained here"
        )
    config = _config_of(reader)
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    tensors: dict[str, torch.Tensor] = {}
    for tensor in reader.tensors:
        values = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy()).float()
        if tensor.name in _TOP:
            tensors[_TOP[tensor.name]] = values.bfloat16()
            continue
        _, layer, kind, _ = tensor.name.split(".")
        if (count := heads.get(kind)) is not None:
            values = _uninterleaved(values, count)
        tensors[f"model.layers.{layer}.{LAYER_NAMES[kind]}.weight"] = values.bfloat16().contiguous()
    config["tie_word_embeddings"] = "lm_head.weight" not in tensors
    with _written(folder) as partial:
        save_file(tensors, str(partial / "model.safetensors"), metadata={"format": "pt"})
        _write_json(partial / "config.json", config)
        _write_json(partial / "generation_config.json", {"eos_token_id": config["eos_token_id"], "do_sample": False})
        (partial / "tokenizer.json").write_bytes(tokenizer_json(file))
        (partial / "tokenizer_config.json").write_bytes(tokenizer_config(file))


def merge(source: Path, adapter: Path, folder: Path) -> int:
    """Write the model in `source` with the adapter's changes added to its weights; return how many tensors changed.

    Sums are taken in float32 and rounded once. Raises ModelError where the adapter is of another model.
    """
    try:
        loras = lora_of(adapter)
    except AdapterError as error:
        raise ModelError(str(error)) from error
    config = read_config(source)
    merged = 0

    def add(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        nonlocal merged
        changed = {name: _added(tensors[name], loras.pop(name), name) for name in tensors.keys() & loras.keys()}
        merged += len(changed)
        return tensors | changed

    _rewrite(source, folder, config, add)
    if loras:
        shutil.rmtree(folder)
        raise ModelError(f"{adapter} changes {next(iter(loras))}, which {source} does not have: it was trained on another model")
    return merged


def to_minicpm(source: Path, folder: Path, scales: Scales | None = None) -> int:
    """Write the Llama in `source` in MiniCPM's form, with the same logits but for rounding; return how many tensors were scaled.

    The embedding is divided by `scale_emb`, each branch by `scale_depth / sqrt(layers)`, and the head multiplied by
    `hidden_size / dim_model_base`; tied weights part. Raises ModelError.
    """
    scales = scales or Scales()
    config = read_config(source)
    if config.get("architectures") != ["LlamaForCausalLM"]:
        raise ModelError(f"{source} is {config.get('architectures')}; only ['LlamaForCausalLM'] is written in MiniCPM's form")
    branch = scales.scale_depth / math.sqrt(config["num_hidden_layers"])
    tied = bool(config.get("tie_word_embeddings"))
    scaled = 0

    def scale(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        nonlocal scaled
        embedding = "model.embed_tokens.weight"
        if tied and embedding in tensors:
            tensors["lm_head.weight"] = tensors[embedding].clone()
        for name in list(tensors):
            by = 1.0
            if name == embedding:
                by = 1 / scales.scale_emb
            elif name == "lm_head.weight":
                by = config["hidden_size"] / scales.dim_model_base
            elif name.endswith((".self_attn.o_proj.weight", ".mlp.down_proj.weight")):
                by = 1 / branch
            if by != 1.0:
                tensors[name] = (tensors[name].float() * by).to(tensors[name].dtype)
                scaled += 1
        return tensors

    changed = (
        config
        | scales._asdict()
        | {
            "architectures": ["MiniCPMForCausalLM"],
            "model_type": "minicpm",
            "auto_map": {"AutoConfig": "configuration_minicpm.MiniCPMConfig"},
            "tie_word_embeddings": False,
        }
    )
    _rewrite(source, folder, changed, scale)
    (folder / "configuration_minicpm.py").write_text(CONFIGURATION, encoding="utf-8")
    return scaled


def write_form(model: Path, folder: Path, *, adapter: Path | None, scales: Scales | None) -> None:
    """Write `model`, a folder in Llama's form or a GGUF file, with `adapter` merged in, in MiniCPM's form where there are `scales`.

    Raises ModelError, also when there would be nothing to write.
    """
    steps: list[Callable[[Path, Path], object]] = []
    if model.is_file():
        steps.append(from_gguf)
    if adapter is not None:
        steps.append(lambda source, target: merge(source, adapter, target))
    if scales is not None:
        steps.append(lambda source, target: to_minicpm(source, target, scales))
    if not steps:
        raise ModelError(f"{model} is in Llama's form already, and no adapter is named: there is nothing to write")
    in_steps(model, folder, steps)


def in_steps(source: Path, folder: Path, steps: Sequence[Callable[[Path, Path], object]]) -> None:
    """Apply `steps` one after the other, each of which writes a folder from another; only the last one is kept, as `folder`."""
    if folder.exists():
        raise ModelError(f"{folder} exists; name a folder that does not, so that nothing is mixed")
    for number, step in enumerate(steps, 1):
        target = folder if number == len(steps) else folder.with_name(f"{folder.name}.step{number}")
        shutil.rmtree(target, ignore_errors=True)
        try:
            step(source, target)
        finally:
            if number > 1:
                shutil.rmtree(source)
        source = target


def read_config(folder: Path) -> dict[str, Any]:
    """Return a model's `config.json`; raise ModelError."""
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder}/config.json cannot be read: {error}") from error
    return config


def tensor_of(folder: Path, name: str) -> torch.Tensor:
    """Return one tensor of a model's folder; raise ModelError where it has none of that name."""
    for shard in sorted(folder.glob("*.safetensors")):
        with safe_open(str(shard), framework="pt") as opened:
            if name in opened.keys():  # noqa: SIM118 - no dict
                tensor: torch.Tensor = opened.get_tensor(name)
                return tensor
    raise ModelError(f"{folder} has no tensor {name}")


def _added(weight: torch.Tensor, lora: Lora, name: str) -> torch.Tensor:
    change = torch.from_numpy(lora.change())
    if change.shape != weight.shape:
        raise ModelError(f"the adapter's change of {name} has shape {tuple(change.shape)}, the model's weight {tuple(weight.shape)}")
    return (weight.float() + change).to(weight.dtype)


def _config_of(reader: Any) -> dict[str, Any]:
    def value(name: str) -> Any:
        field = reader.fields.get(name)
        return None if field is None else field.contents()

    hidden, heads = value("llama.embedding_length"), value("llama.attention.head_count")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "num_hidden_layers": value("llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": value("llama.attention.head_count_kv") or heads,
        "head_dim": hidden // heads,
        "intermediate_size": value("llama.feed_forward_length"),
        "vocab_size": len(value("tokenizer.ggml.tokens")),
        "max_position_embeddings": value("llama.context_length"),
        "rms_norm_eps": value("llama.attention.layer_norm_rms_epsilon"),
        "rope_theta": value("llama.rope.freq_base") or 10_000.0,
        "hidden_act": "silu",
        "bos_token_id": value("tokenizer.ggml.bos_token_id"),
        "eos_token_id": value("tokenizer.ggml.eos_token_id"),
        "torch_dtype": "bfloat16",
    }


def _uninterleaved(weight: torch.Tensor, heads: int) -> torch.Tensor:
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).transpose(1, 2).reshape(rows, columns)


def _rewrite(
    source: Path, folder: Path, config: dict[str, Any], change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
) -> None:
    """Write each shard of `source` as `change` returns it, beside `config` and the model's other files."""
    shards = sorted(source.glob("*.safetensors"))
    if not shards:
        raise ModelError(f"{source} holds no *.safetensors files")
    with _written(folder) as partial:
        places: dict[str, str] = {}
        for shard in shards:
            tensors = change(load_file(str(shard)))
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, str(partial / shard.name), metadata={"format": "pt"})
            places |= dict.fromkeys(tensors, shard.name)
        if len(shards) > 1:
            _write_json(partial / "model.safetensors.index.json", {"metadata": {}, "weight_map": dict(sorted(places.items()))})
        for file in source.iterdir():
            if file.is_file() and file.suffix != ".safetensors" and not file.name.endswith("index.json") and file.name != "config.json":
                shutil.copy2(file, partial / file.name)
        _write_json(partial / "config.json", config)


@contextmanager
def _written(folder: Path) -> Iterator[Path]:
    """Yield a folder that becomes `folder` when it is complete; raise ModelError where that is there already."""
    if folder.exists():
        raise ModelError(f"{folder} exists; name a folder that does not, so that nothing is mixed")
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    partial.replace(folder)


def _write_json(file: Path, values: object) -> None:
    file.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
