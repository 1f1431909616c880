"""Trains a LoRA adapter of a model in Llama's form on examples, with peft: the loss counts the taught tokens alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import peft
import torch
from numpy.typing import NDArray
from peft.helpers import disable_input_dtype_casting
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from services.inference.local.adapter import CONFIG, WEIGHTS, AdapterError, Lora, lora_of
from services.inference.local.checksums import sha256_of, write_checksums
from services.training.batches import Batch, batch_of, batches
from services.training.examples import Example
from services.training.model_files import ModelError, digest_of, write_json, write_tensors
from services.training.training_loop import (
    RESULT,
    LoopSettings,
    Trained,
    TrainingSettings,
    device_of,
    fingerprint_of,
    finish,
    finished,
    on_device,
    run,
)

_ALPHA: Final = 2
"""Alpha of a LoRA by its rank, which scales its change."""
MODULES: Final = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_KEPT: Final = (
    *("peft_type", "task_type", "r", "lora_alpha", "lora_dropout", "bias", "use_rslora", "use_dora", "fan_in_fan_out"),
    "modules_to_save",
)
"""Of peft's configuration, what whoever merges or loads the adapter reads."""
_LARGE: Final = 10**9
"""Parameters above which activations are computed again in the backward pass rather than kept."""


@dataclass(frozen=True, kw_only=True)
class AdapterSettings(TrainingSettings):
    """`rank` is that of the LoRA; its alpha is twice that. A token of the decision counts `decision_weight` times one of the rationale."""

    rank: int = 8
    decision_weight: float = 5.0


def train_adapter(
    model_folder: Path,
    examples: Sequence[Example],
    held_out: Sequence[Example],
    folder: Path,
    settings: AdapterSettings,
    *,
    start: Path | None = None,
    progress: Callable[[str], None],
    wanted: Callable[[], bool] = lambda: True,
) -> Trained:
    """Train on `examples`, and write adapter and log to `folder`; the loss on `held_out` is in the log before and after.

    The training begins with the adapter in `start`; ValueError where that has another rank, or is of another model. Resumes an
    interrupted run in the same folder, and does nothing where the same run is finished there; ValueError where another run is. The same
    seed, data and machine give the same adapter.
    """
    loras = None if start is None else adapter_in(start)
    began_with = None if start is None else sha256_of(start / CONFIG, start / WEIGHTS)
    fingerprint = fingerprint_of(examples, digest_of(model_folder), (settings, began_with))
    if (before_now := finished(folder, fingerprint, WEIGHTS)) is not None:
        progress(f"{folder} holds the adapter of this run already")
        return before_now
    torch.manual_seed(settings.seed)
    device = device_of()
    model = load_model(model_folder, device)
    if sum(parameter.numel() for parameter in model.parameters()) > _LARGE:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    lora = peft.LoraConfig(r=settings.rank, lora_alpha=_ALPHA * settings.rank, target_modules=list(MODULES), task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(model, lora)
    if start is not None and loras is not None:
        _load(adapted, loras, start, settings.rank)
    parameters = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    order = list(batches(examples, tokens=settings.batch_tokens, epochs=settings.epochs, seed=settings.seed))
    steps = min(settings.steps or len(order), len(order))
    progress(
        f"{len(examples):,} examples, {sum(one.ids.size for one in examples):,} tokens an epoch, "
        f"{sum(parameter.numel() for parameter in parameters):,} trained parameters, {steps} steps on {device.type}"
    )
    checks = [batch_of(held_out[at : at + 8]) for at in range(0, len(held_out), 8)]
    before = held_out_loss(model, checks, device) if checks else None
    loop = LoopSettings(steps=steps, learning_rate=settings.learning_rate, budget_s=settings.budget_s)
    done = run(
        parameters,
        order,
        lambda batch: taught_loss(model, batch, device, settings.decision_weight),
        loop,
        folder,
        fingerprint=fingerprint,
        progress=progress,
        wanted=wanted,
    )
    if done.stopped:
        return done
    after = held_out_loss(model, checks, device) if checks else None
    if before is not None and after is not None:
        progress(
            f"held-out loss a taught token: {before.loss:.3f} before, {after.loss:.3f} after; {after.share_likeliest:.1%} of taught tokens "
            f"are the likeliest; of decisions, {after.actions_right:.1%} have the taught action, {after.decisions_right:.1%} every token"
        )
    made: dict[str, Any] = {
        "model": model_folder.name,
        "settings": asdict(settings),
        "start": start and start.name,
        "done": asdict(done),
        "fingerprint": fingerprint,
        "device": _device_name(),
    }
    held = {name: None if one is None else one._asdict() for name, one in (("held_out_before", before), ("held_out_after", after))}
    made |= {"torch": torch.__version__, "peft": peft.__version__} | held
    _write(adapted, folder, made)
    finish(folder)
    return done


def adapter_in(folder: Path) -> dict[str, Lora]:
    """Return the changes of the adapter in `folder`; raise ValueError."""
    try:
        return lora_of(folder)
    except AdapterError as error:
        raise ValueError(str(error)) from error


def _load(adapted: Any, loras: dict[str, Lora], folder: Path, rank: int) -> None:
    """Set the adapter's weights to those of `loras`, which `folder` stores; raise ValueError where they do not fit."""
    found = next(iter(loras.values())).up.shape[1]
    if found != rank:
        raise ValueError(f"the adapter in {folder} has rank {found} and --rank is {rank}: give --rank {found}")
    tensors: dict[str, torch.Tensor] = {}
    for name, lora in loras.items():
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        tensors[f"{stem}.lora_A.weight"] = torch.from_numpy(lora.down)
        tensors[f"{stem}.lora_B.weight"] = torch.from_numpy(lora.up) * (lora.scale / _ALPHA)
    wanted = {name: tensor.shape for name, tensor in peft.get_peft_model_state_dict(adapted).items()}
    for name in sorted(wanted.keys() | tensors.keys()):
        if name not in tensors or name not in wanted or tensors[name].shape != wanted[name]:
            sizes = [tuple(shape) if shape else "none" for shape in (tensors[name].shape if name in tensors else None, wanted.get(name))]
            raise ValueError(
                f"the adapter in {folder} has {name} of shape {sizes[0]}, and one of this model {sizes[1]}: it was trained on another model"
            )
    peft.set_peft_model_state_dict(adapted, tensors)


def load_model(folder: Path, device: torch.device) -> Any:
    """Return a causal model with its weights in bfloat16 on a GPU, float32 on a CPU; raise ModelError where weights are missing."""
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa", output_loading_info=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"the model in {folder} cannot be loaded: {error}") from error
    model, info = loaded
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(f"{folder} lacks {len(missing)} of the model's weights, such as {missing[0]}: copy the model again")
    return model.to(device)


def taught_loss(model: Any, batch: Batch, device: torch.device, decision_weight: float) -> torch.Tensor:
    """Return the weighted mean of the cross entropies of the taught tokens."""
    logits, wanted = taught_logits(model, batch, device)
    losses = torch.nn.functional.cross_entropy(logits.float(), wanted, reduction="none")
    weights = 1.0 + (decision_weight - 1.0) * _of_taught(batch, batch.decision).to(device)
    return (losses * weights).sum() / weights.sum()


def taught_logits(model: Any, batch: Batch, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits (taught tokens, vocabulary) before each taught token, and these tokens.

    Logits of whole prompts would take 0.4 GB for 4,096 tokens.
    """
    ids, taught = on_device(batch, device)
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"), disable_input_dtype_casting(model):
        hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
        mask = taught[:, 1:]
        return model.lm_head(hidden[mask]), ids[:, 1:][mask]


class HeldOut(NamedTuple):
    """How well taught answers are known: mean loss a taught token, and shares of tokens, first tokens and whole decisions.

    A token is right when it is the likeliest after those taught before it, so that a greedy answer has a right decision.
    """

    loss: float
    share_likeliest: float
    actions_right: float
    decisions_right: float


@torch.no_grad()
def held_out_loss(model: Any, checks: Sequence[Batch], device: torch.device) -> HeldOut:
    """Return how well the model knows the answers of `checks`."""
    total = 0.0
    tokens: list[torch.Tensor] = []
    actions: list[bool] = []
    decisions: list[bool] = []
    for batch in checks:
        logits, wanted = taught_logits(model, batch, device)
        total += float(torch.nn.functional.cross_entropy(logits.float(), wanted, reduction="sum"))
        right = (logits.argmax(-1) == wanted).cpu()
        tokens.append(right)
        rows = torch.from_numpy(batch.taught[:, 1:].nonzero()[0])
        decides = _of_taught(batch, batch.decision)
        for row in range(len(batch.lengths)):
            if len(of_decision := right[decides & (rows == row)]):
                actions.append(bool(of_decision[0]))
                decisions.append(bool(of_decision.all()))
    every = torch.cat(tokens)
    count = max(1, len(decisions))
    return HeldOut(total / every.numel(), float(every.float().mean()), sum(actions) / count, sum(decisions) / count)


def _of_taught(batch: Batch, mask: NDArray[np.bool_]) -> torch.Tensor:
    """Return `mask` at the taught tokens, in the order of `taught_logits`, on the CPU."""
    return torch.from_numpy(mask[:, 1:][batch.taught[:, 1:]])


def _write(adapted: Any, folder: Path, made: dict[str, Any]) -> None:
    """Write the adapter in peft's own form, its weights in float16: half the size, and finer than the bfloat16 that serves them."""
    tensors = {name: tensor.detach().half().cpu() for name, tensor in peft.get_peft_model_state_dict(adapted).items()}
    if broken := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise ValueError(f"{broken[0]} holds values that are no numbers in float16; train again with a lower --learning-rate")
    config = adapted.peft_config["default"].to_dict()
    values = {name: getattr(config[name], "value", config[name]) for name in _KEPT if name in config}
    values |= {"target_modules": sorted(MODULES), "base_model_name_or_path": made["model"], "inference_mode": True}
    write_tensors(tensors, folder / WEIGHTS)
    write_json(folder / CONFIG, values)
    write_checksums(folder, (WEIGHTS, CONFIG))
    write_json(folder / RESULT, made)


def _device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
