"""What does not fit each other (model, examples, engine, scales) is refused in a sentence, before any work is done."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from services.cli.engine_draft import app as draft_app
from services.cli.model import app
from services.training.examples import save
from services.training.tiny import tiny_model
from tests.unit.training.build import VOCABULARY, examples


def refused(command: Sequence[object]) -> str:
    """Run a command of `aquiline model` or `aquiline engine draft`, and return the sentence with which it is refused."""
    result = CliRunner().invoke(draft_app if command[0] == "train" else app, [str(one) for one in command])
    assert (result.exit_code, type(result.exception)) == (2, SystemExit), (result.output, result.exception)
    return str(result.output)


def _shorter_vocabulary(model: Path) -> None:
    _configure(model, vocab_size=20)
    tensors = load_file(model / "model.safetensors")
    tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"][:20].clone()
    save_file(tensors, str(model / "model.safetensors"), metadata={"format": "pt"})


def _configure(model: Path, **changes: object) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | changes))


def _without_a_tensor(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    del tensors["model.layers.3.mlp.up_proj.weight"]
    save_file(tensors, str(model / "model.safetensors"), metadata={"format": "pt"})


def _cut_off(model: Path) -> None:
    content = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize("command", ["tune", "train"])
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_shorter_vocabulary, "has 20 tokens: prepare the examples with the model's own --tokenizer-file"),
        (lambda model: _configure(model, max_position_embeddings=20), "prepare the examples with --max-tokens 20"),
        (lambda model: _configure(model, architectures=["MiniCPMForCausalLM"]), "aquiline engine convert"),
        (lambda model: (model / "model.safetensors").unlink(), "holds no *.safetensors files"),
        (lambda model: (model / "config.json").unlink(), "config.json cannot be read"),
        (lambda model: (model / "tokenizer.json").write_text("{}"), "was encoded with another tokenizer"),
        (_without_a_tensor, "lacks 1 of the model's weights, such as model.layers.3.mlp.up_proj.weight"),
        (_cut_off, "cannot be loaded"),
    ],
)
def test_a_model_that_does_not_fit_the_examples(change: Callable[[Path], object], sentence: str, command: str, tmp_path: Path) -> None:
    file = tmp_path / "examples.npz.xz"
    save([*examples(8), *examples(2, part="test")], file, {"tokenizer": "t"})
    model = tiny_model(tmp_path / "model", examples(4), vocab_size=VOCABULARY)
    change(model)
    output = refused([command, file, "--model", model, "--out", tmp_path / "out"])
    assert sentence in output
    assert not (tmp_path / "out").exists()


def test_no_draft_is_written_over_a_model(tmp_path: Path) -> None:
    file = tmp_path / "examples.npz.xz"
    save(examples(8), file, {"tokenizer": "t"})
    model = tiny_model(tmp_path / "model", examples(4), vocab_size=VOCABULARY)
    stored = (model / "model.safetensors").read_bytes()
    assert "would be overwritten" in refused(["train", file, "--model", model, "--out", model])
    assert (model / "model.safetensors").read_bytes() == stored


def test_chains_longer_than_any_answer(tmp_path: Path) -> None:
    file = tmp_path / "examples.npz.xz"
    save(examples(8), file, {"tokenizer": "t"})
    model = tiny_model(tmp_path / "model", examples(4), vocab_size=VOCABULARY)
    assert "the longest answer has 8 tokens" in refused(["train", file, "--model", model, "--out", tmp_path / "out", "--chain", 8])


def test_an_evaluation_without_an_engine_is_no_verdict(tmp_path: Path) -> None:
    file = tmp_path / "examples.npz.xz"
    save(examples(4, part="test"), file, {})
    asked = ["eval", file, "--url", "http://127.0.0.1:9"]
    assert "the engine at http://127.0.0.1:9 cannot be asked" in refused(asked)
    assert "its folder does not exist" in refused([*asked, "--out", tmp_path / "none" / "figures.json"])
    assert "expected an address" in refused(["eval", file, "--url", "nowhere"])
    assert "holds no test examples" in refused(["eval", _train_only(tmp_path), "--url", "http://127.0.0.1:9"])


def test_an_evaluation_with_another_tokenizer(tmp_path: Path) -> None:
    file, tokenizer = tmp_path / "examples.npz.xz", tmp_path / "tokenizer.json"
    save(examples(4, part="test"), file, {"tokenizer": "t"})
    tokenizer.write_text("{}")
    assert "another tokenizer (t)" in refused(["eval", file, "--url", "http://127.0.0.1:9", "--tokenizer-file", tokenizer])


def _train_only(folder: Path) -> Path:
    save(examples(4), folder / "train.npz.xz", {})
    return folder / "train.npz.xz"


@pytest.mark.parametrize(
    ("option", "value"),
    [("--scale-emb", "0"), ("--scale-depth", "0"), ("--dim-model-base", "0"), ("--scale-emb", "-12"), ("--scale-depth", "nan")],
)
def test_a_scale_that_nothing_can_be_divided_by(option: str, value: str, tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model", examples(4), vocab_size=VOCABULARY)
    assert f"{option} {value}: expected a positive number" in refused(
        ["convert", model, tmp_path / "out", "--form", "minicpm", option, value]
    )
    assert not (tmp_path / "out").exists()


def test_what_is_no_model_is_not_converted(tmp_path: Path) -> None:
    (tmp_path / "junk.gguf").write_bytes(b"no model " * 40)
    assert "junk.gguf is no GGUF file" in refused(["convert", tmp_path / "junk.gguf", tmp_path / "out"])
    assert "missing/config.json cannot be read" in refused(["convert", tmp_path / "missing", tmp_path / "out"])
    model = tiny_model(tmp_path / "model", examples(4), vocab_size=VOCABULARY)
    assert "there is nothing to write" in refused(["convert", model, tmp_path / "out"])
    assert "cannot be written" in refused(["convert", model, tmp_path / "junk.gguf" / "out", "--form", "minicpm"])
    _cut_off(model)
    assert "model.safetensors cannot be read" in refused(["convert", model, tmp_path / "out", "--form", "minicpm"])
    shutil.rmtree(model)
    assert not (tmp_path / "out").exists()
