"""An adapter learns the taught tokens, an interrupted run continues to the same weights, and a dry run shows that all is there."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from services.cli.engine_draft import app as draft_app
from services.cli.model import app
from services.training.adapter_training import AdapterSettings, load_model, taught_loss, train_adapter
from services.training.batches import batch_of
from services.training.examples import save
from services.training.tiny import tiny_model
from tests.unit.training.build import VOCABULARY, example, examples

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
        assert "2 steps of a tiny random model" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["examples.npz.xz"]


@pytest.mark.parametrize("command", ["tune", "train"])
def test_a_dry_run_leaves_what_the_folder_holds(command: str, tmp_path: Path) -> None:
    file = tmp_path / "examples.npz.xz"
    # A test prompt holds a token that no training prompt has.
    rare = example(1, part="test", vocabulary=VOCABULARY * 2)
    save([*examples(8), rare], file, {"tokenizer": "t"})
    out = tmp_path / "out"
    out.mkdir()
    stored = {"adapter_model.safetensors": b"an adapter", "model.safetensors": b"a draft", "training.json": b"{}"}
    for name, content in stored.items():
        (out / name).write_bytes(content)
    arguments = [command, str(file), "--model", "none", "--out", str(out), "--dry-run"]
    result = CliRunner().invoke(draft_app if command == "train" else app, arguments)
    assert result.exit_code == 0, result.output
    assert {path.name: path.read_bytes() for path in out.iterdir()} == stored


def test_the_same_seed_gives_the_same_adapter_and_another_seed_another(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model", examples(4), vocab_size=VOCABULARY)
    stored = []
    for folder, seed in (("one", 0), ("two", 0), ("three", 1)):
        train_adapter(model, examples(12), [], tmp_path / folder, replace(SETTINGS, seed=seed, steps=4), progress=lambda _line: None)
        stored.append((tmp_path / folder / "adapter_model.safetensors").read_bytes())
    assert stored[0] == stored[1] != stored[2]


def test_a_finished_run_is_not_trained_again_and_no_other_run_overwrites_it(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model", examples(4), vocab_size=VOCABULARY)
    other = tiny_model(tmp_path / "other", examples(4), vocab_size=VOCABULARY)
    tensors = load_file(other / "model.safetensors")
    save_file(
        {name: tensor * (2 if "layers.3" in name else 1) for name, tensor in tensors.items()},
        str(other / "model.safetensors"),
        metadata={"format": "pt"},
    )
    said: list[str] = []

    def train(given: Path, settings: AdapterSettings, folder: str) -> None:
        train_adapter(given, examples(12), [], tmp_path / folder, settings, progress=said.append)

    few = replace(SETTINGS, steps=4)
    train(model, few, "out")
    stored = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    said.clear()
    train(model, few, "out")
    assert len(said) == 1
    for given, settings in ((other, few), (model, replace(few, seed=1)), (model, replace(few, rank=2))):
        with pytest.raises(ValueError, match=r"another run or model.*name another --out"):
            train(given, settings, "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == stored


def test_an_interrupted_run_is_not_continued_with_another_model(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model", examples(4), vocab_size=VOCABULARY)
    assert _train(tmp_path / "out", model, stop_after=3)
    other = tiny_model(tmp_path / "other", examples(4), vocab_size=VOCABULARY, layers=9)
    with pytest.raises(ValueError, match=r"interrupted run of .* another model"):
        _train(tmp_path / "out", other)
    assert not _train(tmp_path / "out", model)


def test_an_adapter_of_another_model_is_no_start(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model", examples(4), vocab_size=VOCABULARY)
    _train(tmp_path / "first", model)
    for name, widths in (("wider", {"hidden": 64}), ("deeper", {"layers": 10}), ("flatter", {"layers": 6})):
        other = tiny_model(tmp_path / name, examples(4), vocab_size=VOCABULARY, **widths)
        with pytest.raises(ValueError, match="it was trained on another model"):
            train_adapter(other, examples(4), [], tmp_path / "out", SETTINGS, start=tmp_path / "first", progress=lambda _line: None)


def test_a_start_counts_by_the_alpha_that_it_was_trained_with(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model", examples(4), vocab_size=VOCABULARY)
    _train(tmp_path / "first", model)
    (tmp_path / "first" / "SHA256SUMS").unlink()
    config = tmp_path / "first" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"lora_alpha": 0}))
    train, test = examples(4), examples(4, part="test")
    train_adapter(model, train, test, tmp_path / "second", SETTINGS, start=tmp_path / "first", progress=lambda _line: None)
    first, second = (json.loads((tmp_path / name / "training.json").read_text()) for name in ("first", "second"))
    assert second["held_out_before"] == pytest.approx(first["held_out_before"])


def test_the_files_of_an_adapter_have_their_checksums(tmp_path: Path) -> None:
    _train(tmp_path / "out", tiny_model(tmp_path / "model", examples(4), vocab_size=VOCABULARY))
    lines = (tmp_path / "out" / "SHA256SUMS").read_text().splitlines()
    listed = {name: digest for digest, name in map(str.split, lines)}
    assert listed == {
        name: hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest()
        for name in ("adapter_model.safetensors", "adapter_config.json")
    }


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"budget_s": 0.0}, "--budget-s 0"),
        ({"budget_s": float("inf")}, "--budget-s inf"),
        ({"budget_s": float("nan")}, "--budget-s nan"),
        ({"learning_rate": 0.0}, "--learning-rate 0"),
        ({"learning_rate": float("nan")}, "--learning-rate nan"),
        ({"seed": -1}, "--seed -1"),
        ({"seed": 1 << 64}, "--seed 1844"),
    ],
)
def test_settings_that_cannot_train_are_refused_by_their_name(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        AdapterSettings(**settings)


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
