"""The loop that both trainers share: steps with a warm-up and a cosine, progress, checkpoints, and a resume after an interruption."""

from __future__ import annotations

import hashlib
import json
import math
import pickle
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final, TextIO

import torch

from services.training.batches import Batch
from services.training.examples import Example

RESULT: Final = "training.json"
"""What a finished run writes last: its settings, what was done, and the fingerprint of what it was given."""
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

    def __post_init__(self) -> None:
        """Raise ValueError for what cannot train."""
        if not 0 < self.learning_rate <= 1:
            raise ValueError(f"--learning-rate {self.learning_rate:g}: expected more than 0 and at most 1, such as 0.001")
        if self.budget_s is not None and not 0 < self.budget_s < math.inf:
            raise ValueError(f"--budget-s {self.budget_s:g}: expected a positive number of seconds; leave it out for all steps")
        if not 0 <= self.seed < 1 << 63:
            raise ValueError(f"--seed {self.seed}: expected a whole number from 0 to 2^63 - 1")


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


def fingerprint_of(examples: Sequence[Example], model: str, settings: object) -> str:
    """Return a hash of data, model (its digest) and settings: an interrupted run is continued, and a finished one known, under it."""
    digest = hashlib.sha256(repr((model, settings)).encode())
    for one in examples:
        for values in (one.ids, one.taught, one.decision):
            digest.update(values.tobytes())
    return digest.hexdigest()[:16]


def finished(folder: Path, fingerprint: str, result: str) -> Trained | None:
    """Return what the finished run of this fingerprint in `folder` did; None where it is to be started or continued.

    Raises ValueError where `folder` holds another run, or a file `result` that no run wrote: a training overwrites neither.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out {folder} is a file; name a folder")
    another = "continue it with its own command, name another --out, or delete the folder"
    if (folder / _CHECKPOINT).is_file():
        if _read_checkpoint(folder)["fingerprint"] != fingerprint:
            raise ValueError(f"{folder} holds an interrupted run of other examples, another model or other settings: {another}")
        return None
    try:
        made = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        if made["fingerprint"] == fingerprint:
            return Trained(**made["done"])
    except FileNotFoundError:
        if not (folder / result).exists():
            return None
    except (ValueError, KeyError, TypeError):
        pass  # another version's, or none of ours
    raise ValueError(f"{folder} holds {result} of another run or model, which would be overwritten: name another --out, or delete it")


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

    Continues from the checkpoint in `folder`, and ends with one. Stops with a checkpoint once `wanted()` is false. Raises ValueError
    where the loss is no number any more, or a checkpoint cannot be read or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.0)
    done, fitted = _resume(folder, parameters, optimizer)
    if done.steps:
        progress(f"continuing after step {done.steps} of {fitted or settings.steps}")
    began, before = time.monotonic(), replace(done)
    losses: list[torch.Tensor] = []
    budget = _Budget(settings.budget_s, settings.steps, fitted, before, progress)
    with _log_of(folder, done.steps) as log:
        for batch in islice(batches, done.steps, settings.steps):
            if done.steps >= budget.steps:
                break
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * _share(done.steps, budget.steps)
            loss = loss_of(batch)
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(loss.detach())
            done.steps += 1
            budget.count(done.steps)
            done.tokens += int(batch.lengths.sum())
            elapsed_s = time.monotonic() - began
            done.seconds = before.seconds + elapsed_s
            done.stopped = not wanted()
            ends = done.stopped or done.steps == budget.steps
            saves = ends or done.steps % settings.checkpoint_steps == 0
            if saves or done.steps % settings.report_steps == 0:
                done.loss = _mean_of(losses, done.steps)
                speed = (done.tokens - before.tokens) / elapsed_s
                left_s = (budget.steps - done.steps) * elapsed_s / (done.steps - before.steps)
                progress(f"step {done.steps} of {budget.steps}: loss {done.loss:.4f}, {speed:,.0f} tokens/s, some {left_s:.0f} s left")
                log.write(json.dumps({"step": done.steps, "loss": round(done.loss, 5), "tokens": done.tokens}) + "\n")
            if saves:
                log.flush()
                _save(folder, fingerprint, optimizer, done, budget.fitted)
            if ends:
                break
    return done


def _mean_of(losses: list[torch.Tensor], step: int) -> float:
    """Return the mean loss since the last report, and begin anew; raise ValueError where it is no number."""
    mean = float(torch.stack(losses).mean())
    losses.clear()
    if not math.isfinite(mean):
        raise ValueError(f"the loss is {mean} after step {step}: nothing can be learned any more; train again with a lower --learning-rate")
    return mean


class _Budget:
    """Holds how many steps to take: all, or as many as fit in a number of seconds, by the speed of the first ones.

    A run that continues takes the steps that were fitted when it began, so that its learning rate falls as it would have.
    """

    def __init__(self, budget_s: float | None, steps: int, fitted: int | None, before: Trained, progress: Callable[[str], None]) -> None:
        self._left_s = None if budget_s is None or fitted is not None else budget_s - before.seconds
        self._before = before.steps
        self._progress = progress
        self._first_s = 0.0
        self.steps = fitted or steps
        self.fitted = fitted

    def count(self, done: int) -> None:
        """Count a step, the one that makes `done` in all."""
        if self._left_s is None:
            return
        taken = done - self._before
        if taken == 1:
            self._first_s = time.monotonic()  # the first step compiles kernels: it does not count
        if taken == _TIMED_STEPS:
            a_step_s = (time.monotonic() - self._first_s) / (_TIMED_STEPS - 1)
            fitting = self._before + int(min(self._left_s / a_step_s, self.steps))
            self.steps = self.fitted = max(done, min(self.steps, fitting))
            self._progress(f"{a_step_s:.2f} s a step: {self.steps} steps fit in the budget")


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


def _log_of(folder: Path, steps: int) -> TextIO:
    """Return the log, open for more, without what it says of steps after `steps`, which are taken again."""
    file = folder / _LOG
    kept = []
    for line in file.read_text(encoding="utf-8").splitlines() if steps and file.is_file() else ():
        with suppress(ValueError):  # half a line of a killed process
            if json.loads(line)["step"] <= steps:
                kept.append(line + "\n")
    file.write_text("".join(kept), encoding="utf-8")
    return file.open("a", encoding="utf-8")


def _read_checkpoint(folder: Path) -> dict[str, Any]:
    file = folder / _CHECKPOINT
    try:
        stored: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        return {name: stored[name] for name in ("fingerprint", "parameters", "optimizer", "done", "fitted")}
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{file} cannot be read: {error!r}; delete it to start the training again") from error


def _resume(folder: Path, parameters: Sequence[torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> tuple[Trained, int | None]:
    """Take up the checkpoint, and return what was done before it and how many steps fit in the budget; None where none was fitted."""
    if not (folder / _CHECKPOINT).is_file():
        return Trained(0, 0, 0.0, math.nan), None
    stored = _read_checkpoint(folder)
    with torch.no_grad():
        for parameter, values in zip(parameters, stored["parameters"], strict=True):
            parameter.copy_(values)
    optimizer.load_state_dict(stored["optimizer"])
    return Trained(**stored["done"]), stored["fitted"]


def _save(folder: Path, fingerprint: str, optimizer: torch.optim.Optimizer, done: Trained, fitted: int | None) -> None:
    partial = folder / (_CHECKPOINT + ".partial")
    state = {
        "fingerprint": fingerprint,
        "parameters": [parameter.detach().cpu() for group in optimizer.param_groups for parameter in group["params"]],
        "optimizer": optimizer.state_dict(),
        "done": asdict(done) | {"stopped": False},
        "fitted": fitted,
    }
    try:
        torch.save(state, partial)
        partial.replace(folder / _CHECKPOINT)
    except (OSError, RuntimeError) as error:  # torch's own writer raises RuntimeError on a full disk
        partial.unlink(missing_ok=True)
        raise ValueError(f"no checkpoint can be written to {folder} ({error}): free space there; the same command continues") from error
