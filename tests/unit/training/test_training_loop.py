"""A training that is killed loses the steps since its checkpoint and nothing else, and one that diverges ends with a sentence."""

from __future__ import annotations

import itertools
import json
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from services.training.batches import Batch, batch_of
from services.training.training_loop import LoopSettings, Trained, run
from tests.unit.training.build import example

STEPS = 20


class Killed(BaseException):
    """What SIGKILL is to a training: no code of its own runs afterwards."""


def batches() -> list[Batch]:
    return [batch_of([example(number)]) for number in range(STEPS)]


def trained(
    folder: Path,
    *,
    killed_in: int | None = None,
    stopped_after: int | None = None,
    budget_s: float | None = None,
    loss: Callable[[torch.Tensor], torch.Tensor] = lambda loss: loss,
    width: int = 3,
) -> tuple[torch.Tensor, Trained]:
    """Train a weight of `width` numbers, and return it with what was done; `killed_in` counts the steps that begin."""
    weight = torch.nn.Parameter(torch.ones(width))
    begun = itertools.count(1)
    after = itertools.count(1)

    def loss_of(batch: Batch) -> torch.Tensor:
        if next(begun) == killed_in:
            raise Killed
        return loss((weight * float(batch.ids[0, 0] % 7) - 1.0).pow(2).mean())

    settings = LoopSettings(steps=STEPS, learning_rate=0.05, checkpoint_steps=4, report_steps=2, budget_s=budget_s)
    done = run(
        [weight],
        batches(),
        loss_of,
        settings,
        folder,
        fingerprint="f",
        progress=lambda _line: None,
        wanted=lambda: next(after) != stopped_after,
    )
    return weight.detach(), done


def logged(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / "training.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("step", [2, 6, 11, 20])
def test_a_run_that_is_killed_in_a_step_ends_as_one_that_is_not(step: int, tmp_path: Path) -> None:
    whole, _ = trained(tmp_path / "whole")
    with pytest.raises(Killed):
        trained(tmp_path / "killed", killed_in=step)
    with (tmp_path / "killed" / "training.jsonl").open("a") as log:
        log.write('{"step": 1')  # the line that it was writing
    again, done = trained(tmp_path / "killed")
    assert torch.equal(again, whole)
    assert done.steps == STEPS
    assert logged(tmp_path / "killed") == logged(tmp_path / "whole") == list(range(2, STEPS + 1, 2))


def test_a_run_that_is_killed_after_its_last_step_trains_none_again(tmp_path: Path) -> None:
    whole, _ = trained(tmp_path)
    again, done = trained(tmp_path, killed_in=1)
    assert torch.equal(again, whole)
    assert done.steps == STEPS


def test_a_run_that_continues_takes_the_steps_that_its_budget_gave_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()
    monkeypatch.setattr("services.training.training_loop.time.monotonic", lambda: float(next(clock)))
    _, whole = trained(tmp_path / "whole", budget_s=15.0)
    assert 8 < whole.steps < STEPS
    _, stopped = trained(tmp_path / "parts", budget_s=15.0, stopped_after=10)
    assert (stopped.steps, stopped.stopped) == (10, True)
    _, done = trained(tmp_path / "parts", budget_s=15.0)
    assert (done.steps, done.stopped) == (whole.steps, False)


def test_a_loss_that_is_no_number_ends_the_run_and_leaves_the_checkpoint_before_it(tmp_path: Path) -> None:
    begun = itertools.count(1)
    with pytest.raises(ValueError, match=r"the loss is nan after step 10: .*lower --learning-rate"):
        trained(tmp_path, loss=lambda loss: loss * (float("nan") if next(begun) == 9 else 1.0))
    _, done = trained(tmp_path)
    assert done.steps == STEPS


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04"])
def test_a_checkpoint_that_cannot_be_read_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"checkpoint\.pt cannot be read: .*delete it"):
        trained(tmp_path)


def test_a_checkpoint_that_finds_no_room_is_named_and_the_one_before_it_stays(tmp_path: Path) -> None:
    trained(tmp_path, width=100_000, stopped_after=3)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        with pytest.raises(ValueError, match="no checkpoint can be written to"):
            trained(tmp_path, width=100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.pt", "training.jsonl"]
    _, done = trained(tmp_path, width=100_000)
    assert done.steps == STEPS
