"""The loop that both trainers share: steps with a warm-up and a cosine, progress, checkpoints, and a resume after an interruption."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

import torch

from services.training.batches import Batch

_CHECKPOINT: Final = "checkpoint.pt"
_LOG: Final = "training.jsonl"
_WARM_UP_SHARE: Final = 0.05
_TIMED_STEPS: Final = 8


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """What every training is told. `batch_tokens` bounds a step's padded tokens; 0 `steps` is all epochs; `budget_s` is in seconds."""

    learning_rate: float = 1e-3
    batch_tokens: int = 32_768
    epochs: int = 1
    steps: int = 0
    budget_s: float | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """How to train: `steps` updates, at most; `learning_rate` is the highest; a checkpoint is written every so many steps."""

    steps: int
    learning_rate: float
    checkpoint_steps: int = 100
    report_steps: int = 10
    clip: float = 1.0
    budget_s: float | None = None
    """Take only as many steps as fit in this many seconds, by the speed of the first ones."""


@dataclass(slots=True)
class Trained:
    """What a run did. `stopped` says that it was interrupted and can be resumed."""

    steps: int
    tokens: int
    seconds: float
    loss: float
    stopped: bool = False


def run(
    parameters: Sequence[torch.nn.Parameter],
    batches: Iterable[Batch],
    loss_of: Callable[[Batch], torch.Tensor],
    settings: LoopSettings,
    folder: Path,
    *,
    fingerprint: str,
    progress: Callable[[str], None],
    wanted: Callable[[], bool] = lambda: True,
) -> Trained:
    """Train `parameters` in place, and return what was done.

    Continues from the checkpoint in `folder` when it has the same `fingerprint` (of data and settings). Stops with a checkpoint once
    `wanted()` is false.
    """
    folder.mkdir(parents=True, exist_ok=True)
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.0)
    done = _resume(folder, fingerprint, parameters, optimizer)
    if done.steps:
        progress(f"continuing after step {done.steps} of {settings.steps}")
    began, before = time.monotonic(), replace(done)
    losses: list[torch.Tensor] = []
    steps, budget = settings.steps, _Budget(settings.budget_s, progress)
    with (folder / _LOG).open("a" if done.steps else "w", encoding="utf-8") as log:
        for batch in islice(batches, done.steps, settings.steps):
            if done.steps >= steps:
                break
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * _share(done.steps, steps)
            loss = loss_of(batch)
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(loss.detach())
            done.steps += 1
            steps = budget.steps_after(done.steps - before.steps, steps)
            done.tokens += int(batch.lengths.sum())
            elapsed_s = time.monotonic() - began
            done.seconds = before.seconds + elapsed_s
            if done.steps % settings.report_steps == 0 or done.steps == steps:
                done.loss = float(torch.stack(losses).mean())
                losses.clear()
                speed = (done.tokens - before.tokens) / elapsed_s
                left_s = (steps - done.steps) * elapsed_s / (done.steps - before.steps)
                progress(f"step {done.steps} of {steps}: loss {done.loss:.4f}, {speed:,.0f} tokens/s, some {left_s:.0f} s left")
                log.write(json.dumps({"step": done.steps, "loss": round(done.loss, 5), "tokens": done.tokens}) + "\n")
            if not wanted():
                done.stopped = True
                break
            if done.steps % settings.checkpoint_steps == 0:
                _save(folder, fingerprint, parameters, optimizer, done)
    if done.stopped:
        _save(folder, fingerprint, parameters, optimizer, done)
    return done


class _Budget:
    """Says how many steps fit in a number of seconds, by the speed of the first ones."""

    def __init__(self, budget_s: float | None, progress: Callable[[str], None]) -> None:
        self._budget_s = budget_s
        self._progress = progress
        self._first_s = 0.0

    def steps_after(self, taken: int, steps: int) -> int:
        """Return how many steps to take in all after `taken` steps, of at most `steps`."""
        if self._budget_s is None:
            return steps
        if taken == 1:
            self._first_s = time.monotonic()  # the first step compiles kernels: it does not count
        if taken == _TIMED_STEPS:
            a_step_s = (time.monotonic() - self._first_s) / (_TIMED_STEPS - 1)
            fitting = max(taken, min(steps, int(self._budget_s / a_step_s)))
            self._progress(f"{a_step_s:.2f} s a step: {fitting} of {steps} steps fit in {self._budget_s:.0f} s")
            return fitting
        return steps


def finish(folder: Path) -> None:
    """Delete the checkpoint of a run whose result has been written."""
    (folder / _CHECKPOINT).unlink(missing_ok=True)


def device_of() -> torch.device:
    """Return the GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def on_device(batch: Batch, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a batch's ids (int64) and which of them are taught, on `device`."""
    return torch.from_numpy(batch.ids).long().to(device), torch.from_numpy(batch.taught).to(device)


def _share(step: int, steps: int) -> float:
    """Return the share of the highest learning rate at a step: it rises, then falls along a cosine to a twentieth."""
    warm_up = max(1, round(_WARM_UP_SHARE * steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def _resume(folder: Path, fingerprint: str, parameters: Sequence[torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> Trained:
    file = folder / _CHECKPOINT
    if not file.is_file():
        return Trained(0, 0, 0.0, math.nan)
    stored: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    if stored["fingerprint"] != fingerprint:
        return Trained(0, 0, 0.0, math.nan)
    with torch.no_grad():
        for parameter, values in zip(parameters, stored["parameters"], strict=True):
            parameter.copy_(values)
    optimizer.load_state_dict(stored["optimizer"])
    return Trained(**stored["done"])


def _save(
    folder: Path, fingerprint: str, parameters: Sequence[torch.nn.Parameter], optimizer: torch.optim.Optimizer, done: Trained
) -> None:
    partial = folder / (_CHECKPOINT + ".partial")
    state = {
        "fingerprint": fingerprint,
        "parameters": [parameter.detach().cpu() for parameter in parameters],
        "optimizer": optimizer.state_dict(),
        "done": asdict(done) | {"stopped": False},
    }
    torch.save(state, partial)
    partial.replace(folder / _CHECKPOINT)
