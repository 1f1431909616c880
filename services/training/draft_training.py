"""Trains an EAGLE3 draft for a model in Llama's form on its hidden states over examples, with training-time test.

The draft learns the target's own probabilities at the taught positions, over chains as long as the engine drafts. Only one layer attends,
so that a prompt costs the draft two matrix products a token, and the target's forward pass is nearly all of the work.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch

from services.inference.captured_layers import layers_to_capture
from services.training.adapter_training import load_model
from services.training.batches import Batch, batch_of, batches
from services.training.draft_model import Draft, DraftShape
from services.training.examples import Example
from services.training.model_files import digest_of, read_config, write_json, write_tensors
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

_WEIGHTS: Final = "model.safetensors"
_DECAY: Final = 0.8
"""What the loss of each further step of a chain counts: later tokens are only reached where the earlier ones were right."""


@dataclass(frozen=True, kw_only=True)
class DraftSettings(TrainingSettings):
    """Widths of the draft, in units and tokens, and the length of its chains, in tokens."""

    intermediate_size: int = 1_024
    draft_vocab_size: int = 2_048
    chain: int = 3
    epochs: int = 3


class Chains(NamedTuple):
    """Where chains begin, int64 (rows, starts), and at which steps they count, bool (steps, rows, starts)."""

    starts: torch.Tensor
    counts: torch.Tensor


@dataclass(frozen=True, slots=True)
class Accepted:
    """How often the draft's likeliest token is the target's: by step of the chain, and as tokens a verification would yield."""

    by_step: list[float]
    tokens_a_step: float


def train_draft(
    model_folder: Path,
    examples: Sequence[Example],
    held_out: Sequence[Example],
    folder: Path,
    settings: DraftSettings,
    *,
    progress: Callable[[str], None],
    wanted: Callable[[], bool] = lambda: True,
) -> Trained:
    """Train on `examples`, and write the draft to `folder`; how much of it the target would accept is measured on `held_out`.

    Resumes an interrupted run in the same folder, and does nothing where the same run is finished there; ValueError where another run
    or model is.
    """
    settings = replace(settings, draft_vocab_size=min(settings.draft_vocab_size, int(read_config(model_folder)["vocab_size"])))
    longest = max(one.answer_ids.size for one in examples)
    if settings.chain + 1 > longest:
        raise ValueError(f"--chain {settings.chain}: the longest answer has {longest} tokens, and a chain must end inside one")
    fingerprint = fingerprint_of(examples, digest_of(model_folder), settings)
    if (before_now := finished(folder, fingerprint, _WEIGHTS)) is not None:
        progress(f"{folder} holds the draft of this run already")
        return before_now
    torch.manual_seed(settings.seed)
    device = device_of()
    target = _Target(model_folder, device)
    chosen = choose_vocabulary(examples, int(target.config["vocab_size"]), settings.draft_vocab_size)
    draft = Draft(target.shape(settings), torch.from_numpy(chosen)).to(device)
    draft.start_from(target.head, target.norm)
    parameters = list(draft.parameters())
    order = list(batches(examples, tokens=settings.batch_tokens, epochs=settings.epochs, seed=settings.seed))
    steps = min(settings.steps or len(order), len(order))
    progress(
        f"{len(examples):,} examples, hidden states before layers {target.layers}, {sum(one.numel() for one in parameters):,} parameters, "
        f"{chosen.size:,} tokens in the draft's vocabulary, {steps} steps on {device.type}"
    )
    done = run(
        parameters,
        order,
        lambda batch: _loss(draft, target, batch, settings.chain, device),
        LoopSettings(steps=steps, learning_rate=settings.learning_rate, budget_s=settings.budget_s),
        folder,
        fingerprint=fingerprint,
        progress=progress,
        wanted=wanted,
    )
    if done.stopped:
        return done
    accepted = acceptance(draft, target, held_out, settings.chain, device) if held_out else None
    if accepted is not None:
        shares = ", ".join(f"{share:.0%}" for share in accepted.by_step)
        progress(f"on held-out answers the target would accept {accepted.tokens_a_step:.2f} tokens a step (by step of the chain: {shares})")
    tensors = draft.weights()
    if broken := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise ValueError(f"{broken[0]} holds values that are no numbers; train again with a lower --learning-rate")
    config = target.shape(settings).config() | {
        "eos_token_id": target.config.get("eos_token_id"),
        "bos_token_id": target.config.get("bos_token_id"),
    }
    held = None if accepted is None else asdict(accepted)
    write_tensors(tensors, folder / _WEIGHTS)
    write_json(folder / "config.json", config)
    write_json(folder / RESULT, {"settings": asdict(settings), "done": asdict(done), "fingerprint": fingerprint, "held_out": held})
    finish(folder)
    return done


def choose_vocabulary(examples: Sequence[Example], vocab_size: int, size: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the `size` ids that are taught most often, ascending; then those most often in prompts, then the lowest."""
    taught: Counter[int] = Counter()
    seen: Counter[int] = Counter()
    for one in examples:
        taught.update(one.answer_ids.tolist())
        seen.update(np.unique(one.ids).tolist())
    ranked = [token for token, _ in taught.most_common()] + [token for token, _ in seen.most_common()] + list(range(vocab_size))
    return np.array(sorted(list(dict.fromkeys(ranked))[:size]), dtype=np.int64)


def chains_of(taught: torch.Tensor, steps: int) -> Chains:
    """Return the chains of a batch whose `taught` tokens (rows, tokens) are the answers: one for each pair of tokens to be verified.

    The token at i + 1 is known when a chain begins at i; step s says token i + 2 + s, and counts where that is taught.
    """
    tokens = taught.shape[1]
    first = torch.zeros_like(taught)
    first[:, : tokens - 2] = taught[:, 2:] & taught[:, 1:-1]
    first[:, max(0, tokens - 1 - steps) :] = False
    width = max(1, int(first.sum(1).max()))
    # The places of a row's starts come first in a stable sort.
    places = torch.argsort((~first).int(), dim=1, stable=True)[:, :width]
    real = first.gather(1, places)
    starts = torch.where(real, places, torch.zeros_like(places))
    ahead = [taught.gather(1, (starts + 2 + step).clamp(max=tokens - 1)) & real for step in range(steps)]
    counts = torch.stack(ahead).long().cumprod(0).bool()
    return Chains(starts, counts)


class _Target:
    """The model that the draft is for: its hidden states, and the weights that the draft shares or starts from."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.config = read_config(folder)
        self.model: Any = load_model(folder, device).eval().requires_grad_(False)
        self.layers = layers_to_capture(int(self.config["num_hidden_layers"]), None)
        self.embedding: torch.Tensor = self.model.model.embed_tokens.weight
        self.head: torch.Tensor = self.model.lm_head.weight
        self.norm: torch.Tensor = self.model.model.norm.weight

    def shape(self, settings: DraftSettings) -> DraftShape:
        """Return the draft's shape."""
        return DraftShape.of(self.config, intermediate_size=settings.intermediate_size, draft_vocab_size=settings.draft_vocab_size)

    @torch.no_grad()
    def states(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the captured states (rows, tokens, 3 widths) and the normed last ones (rows, tokens, width)."""
        captured: list[torch.Tensor] = []
        hooks = [
            self.model.model.layers[layer].register_forward_pre_hook(
                lambda _module, args, kwargs: captured.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
            )
            for layer in self.layers
        ]
        try:
            last = self.model.model(input_ids=ids, use_cache=False).last_hidden_state
        finally:
            for hook in hooks:
                hook.remove()
        return torch.cat(captured, -1), last


def _loss(draft: Draft, target: _Target, batch: Batch, steps: int, device: torch.device) -> torch.Tensor:
    """Return the cross entropy with the target's probabilities over the draft's vocabulary, of all steps of all chains.

    Where the target's likeliest token is none that the draft has, nothing can be learned, and nothing counts.
    """
    said, wanted, counts = _said(draft, target, batch, steps, device)
    total = said[0].new_zeros(()).float()
    for step, logits in enumerate(said):
        probabilities = wanted[step][..., draft.chosen].float().softmax(-1)
        known = torch.isin(wanted[step].argmax(-1), draft.chosen) & counts[step]
        losses = -(probabilities * logits.float().log_softmax(-1)).sum(-1)
        total = total + _DECAY**step * (losses * known).sum() / known.sum().clamp(min=1)
    return total


def _said(
    draft: Draft, target: _Target, batch: Batch, steps: int, device: torch.device
) -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor]:
    """Return the draft's and the target's logits of each step, and which of them count."""
    ids, taught = on_device(batch, device)
    chains = chains_of(taught, steps)
    captured, last = target.states(ids)
    embeds = target.embedding[ids.roll(-1, 1)]
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        said = draft(captured, embeds, chains.starts, steps)
        with torch.no_grad():
            places = [(chains.starts + 1 + step).clamp(max=ids.shape[1] - 1) for step in range(steps)]
            wanted = [target.model.lm_head(last.gather(1, at[..., None].expand(-1, -1, last.shape[-1]))) for at in places]
    return said, wanted, chains.counts


@torch.no_grad()
def acceptance(draft: Draft, target: Any, examples: Sequence[Example], steps: int, device: torch.device) -> Accepted:
    """Return how much of the draft's greedy chains a greedy target accepts, each chain beginning after a taught token.

    `tokens_a_step` counts the target's own token too, as an engine does. An engine's figure differs: its chains begin where the
    last one ended.
    """
    right = torch.zeros(steps)
    counted = torch.zeros(steps)
    for at in range(0, len(examples), 4):
        said, wanted, counts = _said(draft, target, batch_of(examples[at : at + 4]), steps, device)
        agreeing = torch.ones_like(counts[0])
        for step in range(steps):
            agreeing = agreeing & (draft.chosen[said[step].argmax(-1)] == wanted[step].argmax(-1)) & counts[step]
            right[step] += agreeing.sum().cpu()
            counted[step] += counts[step].sum().cpu()
    shares = (right / counted.clamp(min=1)).tolist()
    return Accepted([round(share, 4) for share in shares], round(1 + sum(shares), 3))
