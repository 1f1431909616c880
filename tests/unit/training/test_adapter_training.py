"""An adapter learns the taught tokens, an interrupted run continues to the same weights, and a dry run shows that all is there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from services.cli.engine_draft import app as draft_app
from services.cli.model import app
from services.training.adapter_training import AdapterSettings, load_model, taught_loss, train_adapter
from services.training.batches import batch_of
from services.training.examples import ExamplesError, load, save
from services.training.tiny import tiny_model
from tests.unit.training.build import VOCABULARY, examples

SETTINGS = AdapterSettings(rank=4, batch_tokens=120, epochs=4, steps=12, learning_rate=1e-2)


def _train(folder: Path, model: Path, *, stop_after: int | None = None) -> bool:
    """Train, and return whether the run was stopped."""
    steps = iter(range(stop_after or 10**6))
    done = train_adapter(
        model,
        examples(12),
        examples(4, part="test"),
        folder,
        SETTINGS,
        progress=lambda _line: None,
        wanted=lambda: next(steps, None) is not None,
    )
    return done.stopped


def test_a_run_that_was_interrupted_ends_with_the_weights_of_one_that_was_not(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model", examples(4), vocab_size=VOCABULARY)
    assert not _train(tmp_path / "whole", model)
    assert _train(tmp_path / "parts", model, stop_after=5)
    assert not (tmp_path / "parts" / "adapter_model.safetensors").exists()
    assert not _train(tmp_path / "parts", model)
    whole, parts = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, rtol=1e-2, atol=1e-3)
    made = json.loads((tmp_path / "whole" / "training.json").read_text())
    before, after = made["held_out_before"], made["held_out_after"]
    assert after["loss"] < before["loss"]
    assert 0 <= after["decisions_right"] <= after["actions_right"] <= 1
    assert not (tmp_path / "parts" / "checkpoint.pt").exists()


def test_a_training_begins_with_the_adapter_that_it_is_given(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model", examples(4), vocab_size=VOCABULARY)
    _train(tmp_path / "first", model)
    train, test, said = examples(12), examples(4, part="test"), list[str]()
    train_adapter(model, train, test, tmp_path / "second", SETTINGS, start=tmp_path / "first", progress=said.append)
    first, second = (json.loads((tmp_path / name / "training.json").read_text()) for name in ("first", "second"))
    assert second["held_out_before"]["loss"] == pytest.approx(first["held_out_after"]["loss"], rel=1e-2)
    assert second["start"] == "first"
    with pytest.raises(ValueError, match="give --rank 4"):
        train_adapter(model, train, test, tmp_path / "third", AdapterSettings(), start=tmp_path / "first", progress=said.append)


def test_a_token_of_the_decision_counts_as_often_as_the_settings_say(tmp_path: Path) -> None:
    model = load_model(tiny_model(tmp_path / "model", examples(4), vocab_size=VOCABULARY), torch.device("cpu"))
    batch = batch_of(examples(3))
    reasons = batch._replace(taught=batch.taught & ~batch.decision, decision=np.zeros_like(batch.decision))
    decisions = batch._replace(taught=batch.decision)
    with torch.no_grad():
        loss, of_reasons, of_decisions = (float(taught_loss(model, one, torch.device("cpu"), 7.0)) for one in (batch, reasons, decisions))
    counts = reasons.taught.sum(), 7 * decisions.taught.sum()
    assert loss == pytest.approx((counts[0] * of_reasons + counts[1] * of_decisions) / sum(counts), rel=1e-5)


def test_the_commands_dry_run_both_trainings_on_a_cpu(tmp_path: Path) -> None:
    file = tmp_path / "examples.npz.xz"
    save([*examples(8), *examples(3, part="test")], file, {"tokenizer": "t"})
    for command, folder in ((app, "adapter"), (draft_app, "draft")):
        arguments = ["train"] if command is draft_app else ["tune"]
        arguments += [str(file), "--model", "none", "--out", str(tmp_path / folder), "--dry-run"]
        result = CliRunner().invoke(command, arguments)
        assert result.exit_code == 0, result.output
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
    assert (tmp_path / "draft" / "model.safetensors").is_file()


@pytest.mark.parametrize("command", ["tune", "eval", "train"])
def test_examples_that_are_not_there_are_refused_in_a_sentence(command: str, tmp_path: Path) -> None:
    where = ["--url", "http://127.0.0.1:9"] if command == "eval" else ["--model", "none", "--out", str(tmp_path / "out")]
    arguments = [command, str(tmp_path / "missing.npz.xz"), *where]
    result = CliRunner().invoke(draft_app if command == "train" else app, arguments)
    assert (result.exit_code, "missing.npz.xz" in result.output) == (2, True), result.output


@pytest.mark.parametrize("command", ["tune", "train"])
def test_a_model_that_is_none_is_refused_in_a_sentence(command: str, tmp_path: Path) -> None:
    file = tmp_path / "examples.npz.xz"
    save(examples(8), file, {"tokenizer": "t"})
    (tmp_path / "model").mkdir()
    arguments = [command, str(file), "--model", str(tmp_path / "model"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(draft_app if command == "train" else app, arguments)
    assert result.exit_code == 2, result.output
    assert str(tmp_path / "model") in result.output


def test_examples_are_read_as_they_were_written(tmp_path: Path) -> None:
    some = [*examples(5), *examples(2, part="test")]
    save(some, tmp_path / "examples", {"tokenizer": "t"})
    found, made_with = load(tmp_path / "examples")
    assert made_with["tokenizer"] == "t"
    for one, other in zip(some, found, strict=True):
        assert one.about == other.about
        assert one.ids.tolist() == other.ids.tolist()
        assert one.taught.tolist() == other.taught.tolist()
        assert one.decision.tolist() == other.decision.tolist()
    (tmp_path / "other").write_bytes(b"no examples")
    with pytest.raises(ExamplesError, match="no file of examples"):
        load(tmp_path / "other")
