"""Trains a LoRA adapter of a model in Llama's form on examples, with peft: the loss counts the taught tokens alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import peft
import torch
from numpy.typing import NDArray
from peft.helpers import disable_input_dtype_casting
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from services.training.batches import Batch, batch_of, batches
from services.training.examples import Example
from services.training.training_loop import LoopSettings, Trained, TrainingSettings, device_of, finish, on_device, run

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
    interrupted run in the same folder. The same seed, data and machine give the same order and start.
    """
    torch.manual_seed(settings.seed)
    device = device_of()
    model = load_model(model_folder, device)
    if sum(parameter.numel() for parameter in model.parameters()) > _LARGE:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    lora = peft.LoraConfig(r=settings.rank, lora_alpha=2 * settings.rank, target_modules=list(MODULES), task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(model, lora)
    if start is not None:
        _load(adapted, start, settings.rank)
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
        fingerprint=fingerprint_of(examples, (settings, start)),
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
        "device": _device_name(),
    }
    held = {name: None if one is None else one._asdict() for name, one in (("held_out_before", before), ("held_out_after", after))}
    made |= {"torch": torch.__version__, "peft": peft.__version__} | held
    _write(adapted, folder, made)
    finish(folder)
    return done


def _load(adapted: Any, folder: Path, rank: int) -> None:
    """Set the adapter's weights to those stored in `folder`."""
    found = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["r"]
    if found != rank:
        raise ValueError(f"the adapter in {folder} has rank {found} and --rank is {rank}: give --rank {found}")
    loaded: Any = peft.set_peft_model_state_dict(adapted, load_file(str(folder / "adapter_model.safetensors")))
    if loaded.unexpected_keys:
        raise ValueError(
            f"the adapter in {folder} changes {loaded.unexpected_keys[0]}, which the model does not have: it was trained on another model"
        )


def load_model(folder: Path, device: torch.device) -> Any:
    """Return a causal model with its weights in bfloat16 on a GPU, float32 on a CPU."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa")
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


def fingerprint_of(examples: Sequence[Example], settings: object) -> str:
    """Return a hash of data and settings, under which a run is resumed."""
    digest = hashlib.sha256(repr(settings).encode())
    for one in examples:
        digest.update(one.ids.tobytes())
    return digest.hexdigest()[:16]


def _write(adapted: Any, folder: Path, made: dict[str, Any]) -> None:
    """Write the adapter in peft's own form, its weights in float16: half the size, and finer than the bfloat16 that serves them."""
    tensors = {name: tensor.detach().half().cpu().contiguous() for name, tensor in peft.get_peft_model_state_dict(adapted).items()}
    save_file(tensors, str(folder / "adapter_model.safetensors"))
    config = adapted.peft_config["default"].to_dict()
    values = {name: getattr(config[name], "value", config[name]) for name in _KEPT if name in config}
    values |= {"target_modules": sorted(MODULES), "base_model_name_or_path": made["model"], "inference_mode": True}
    (folder / "adapter_config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    (folder / "training.json").write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")


def _device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
