"""Model folders in Llama's form: made of a GGUF file, with an adapter merged in, and written in MiniCPM's form, the inverse of `convert`.

Training works on Llama's form: MiniCPM4.1 gets there by `aquiline engine convert`, and its adapted weights come back by `to_minicpm`.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from safetensors import safe_open

from services.inference.local.adapter import LAYER_NAMES, AdapterError, Lora, lora_of
from services.inference.local.vocabulary import tokenizer_config, tokenizer_json
from services.inference.minicpm_configuration import CONFIGURATION
from services.training.model_files import ModelError, read_config, read_tensors, shards_of, write_json, write_tensors, written

_EMBEDDING: Final = "model.embed_tokens.weight"
_HEAD: Final = "lm_head.weight"
_TOP: Final = {"token_embd.weight": _EMBEDDING, "output_norm.weight": "model.norm.weight", "output.weight": _HEAD}


class Scales(NamedTuple):
    """MiniCPM's scales: of the embedding, of the depth, and the width that its head was made for."""

    scale_emb: float = 12.0
    scale_depth: float = 1.4
    dim_model_base: int = 256

    def check(self) -> None:
        """Raise ModelError for a scale that weights cannot be divided by."""
        for name, value in self._asdict().items():
            if not 0 < value < math.inf:
                raise ModelError(f"--{name.replace('_', '-')} {value:g}: expected a positive number, as in the model's config.json")


def from_gguf(file: Path, folder: Path) -> None:
    """Write the Llama of a GGUF file as a folder with config, weights in bfloat16 and tokenizer; raise ModelError.

    GGUF interleaves the rows of queries and keys for its rotary embedding; they are put back.
    """
    try:
        import gguf  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ModelError(f"reading {file.name} needs gguf ({error}): pip install 'aquiline[train]'") from error
    try:
        reader = gguf.GGUFReader(file)
        architecture = reader.fields["general.architecture"].contents()
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise ModelError(f"{file} is no GGUF file: {error}; name a GGUF file of a Llama, or a model's folder") from error
    if architecture != "llama":
        raise ModelError(f"{file} holds no Llama, but {architecture}; only Llama's form is trained here")
    config = _config_of(reader)
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    tensors: dict[str, torch.Tensor] = {}
    for tensor in reader.tensors:
        values = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy()).float()
        if tensor.name in _TOP:
            tensors[_TOP[tensor.name]] = values.bfloat16()
            continue
        _, layer, kind, *_ = [*tensor.name.split("."), "", ""]
        if kind not in LAYER_NAMES or not tensor.name.endswith(".weight"):
            raise ModelError(f"{file} has a tensor {tensor.name}, for which Llama's form as it is trained here has no place")
        if (count := heads.get(kind)) is not None:
            values = _uninterleaved(values, count)
        tensors[f"model.layers.{layer}.{LAYER_NAMES[kind]}.weight"] = values.bfloat16().contiguous()
    config["tie_word_embeddings"] = "lm_head.weight" not in tensors
    try:
        tokenizer, settings = tokenizer_json(file), tokenizer_config(file)
    except ValueError as error:
        raise ModelError(str(error)) from error
    with written(folder) as partial:
        write_tensors(tensors, partial / "model.safetensors")
        write_json(partial / "config.json", config)
        write_json(partial / "generation_config.json", {"eos_token_id": config["eos_token_id"], "do_sample": False})
        (partial / "tokenizer.json").write_bytes(tokenizer)
        (partial / "tokenizer_config.json").write_bytes(settings)


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
    scales.check()
    config = read_config(source)
    if config.get("architectures") != ["LlamaForCausalLM"]:
        raise ModelError(f"{source} is {config.get('architectures')}; only ['LlamaForCausalLM'] is written in MiniCPM's form")
    missing = [name for name in ("hidden_size", "num_hidden_layers") if not isinstance(config.get(name), int)]
    if missing:
        raise ModelError(f"{source}/config.json lacks {missing[0]}, without which the scales are not known")
    tied = bool(config.get("tie_word_embeddings"))
    scaled = 0

    def scale(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        nonlocal scaled
        if (bias := next((name for name in tensors if name.endswith(".bias")), None)) is not None:
            raise ModelError(f"{source} has {bias}, for which MiniCPM's form has no place")
        if tied and _EMBEDDING in tensors:
            tensors[_HEAD] = tensors[_EMBEDDING].clone()
        for name in list(tensors):
            if (by := _factor(name, config, scales)) != 1.0:
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
    _rewrite(source, folder, changed, scale, {"configuration_minicpm.py": CONFIGURATION})
    return scaled


def _factor(name: str, config: Mapping[str, Any], scales: Scales) -> float:
    """Return what the tensor of that name is multiplied by in MiniCPM's form."""
    if name == _EMBEDDING:
        return 1 / scales.scale_emb
    if name == _HEAD:
        return float(config["hidden_size"] / scales.dim_model_base)
    if name.endswith((".self_attn.o_proj.weight", ".mlp.down_proj.weight")):
        return math.sqrt(config["num_hidden_layers"]) / scales.scale_depth
    return 1.0


def write_form(model: Path, folder: Path, *, adapter: Path | None, scales: Scales | None) -> None:
    """Write `model`, a folder in Llama's form or a GGUF file, with `adapter` merged in, in MiniCPM's form where there are `scales`.

    Raises ModelError, also when there would be nothing to write.
    """
    if scales is not None:
        scales.check()
    steps: list[Callable[[Path, Path], object]] = []
    if model.is_file():
        steps.append(from_gguf)
    else:
        read_config(model)
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


def tensor_of(folder: Path, name: str) -> torch.Tensor:
    """Return one tensor of a model's folder; raise ModelError where it has none of that name."""
    for shard in shards_of(folder):
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
    source: Path,
    folder: Path,
    config: dict[str, Any],
    change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]],
    texts: Mapping[str, str] | None = None,
) -> None:
    """Write each shard of `source` as `change` returns it, beside `config`, `texts` and the model's other files."""
    shards = shards_of(source)
    if config.get("quantization_config"):
        raise ModelError(f"{source} is stored quantized, which no change fits: use the bfloat16 checkpoint, and quantize the result")
    with written(folder) as partial:
        places: dict[str, str] = {}
        for shard in shards:
            tensors = change(read_tensors(shard))
            write_tensors(tensors, partial / shard.name)
            places |= dict.fromkeys(tensors, shard.name)
        if len(shards) > 1:
            write_json(partial / "model.safetensors.index.json", {"metadata": {}, "weight_map": dict(sorted(places.items()))})
        for file in source.iterdir():
            if file.is_file() and file.suffix != ".safetensors" and not file.name.endswith("index.json") and file.name != "config.json":
                shutil.copy2(file, partial / file.name)
        write_json(partial / "config.json", config)
        for name, text in (texts or {}).items():
            (partial / name).write_text(text, encoding="utf-8")
