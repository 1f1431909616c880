"""What the launcher refuses, what it estimates, and the command that it makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from services.cli.engine import app
from services.inference.launcher import checks, command, folders, presets
from tests.unit.inference_engine.build import DRAFT, TARGET, folder

GIB = 1024**3


def found(
    tmp_path: Path,
    *,
    target: dict[str, Any] | None = None,
    draft: dict[str, Any] | None = None,
    preset: str = "h100",
    card_gib: float = 79.1,
    context: int = 32_768,
    permits: int = 3,
    extra: tuple[str, ...] = (),
) -> list[str]:
    """Return the findings for folders with these fields changed."""
    model = folders.read(folder(tmp_path / "model", TARGET | (target or {})), what="model")
    drafted = folders.read(folder(tmp_path / "draft", {k: v for k, v in (DRAFT | (draft or {})).items() if v is not None}), what="draft")
    chosen = presets.load(preset)
    return checks.findings(chosen, model, drafted, card_bytes=int(card_gib * GIB), context=context, permits=permits, extra=extra)


@pytest.mark.parametrize("preset", ["h100", "rtx5090", "rtx4090"])
def test_every_preset_starts_with_minicpm_on_its_own_card(tmp_path: Path, preset: str) -> None:
    chosen = presets.load(preset)
    assert found(tmp_path, preset=preset, card_gib=chosen.card_gib, context=chosen.engine.context_tokens) == []


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"draft": {"hidden_size": 2048}}, "hidden states of 2048, but the target's are 4096"),
        ({"draft": {"vocab_size": 32_000}}, "vocabulary of 32,000 is not the target's of 73,448"),
        ({"draft": {"draft_vocab_size": None}}, "has no draft_vocab_size"),
        ({"draft": {"max_position_embeddings": 32_768}}, "below the target's of 65,536"),
        ({"draft": {"architectures": ["LlamaForCausalLM"]}}, "is no EAGLE3 draft"),
        ({"target": {"architectures": ["Qwen3ForCausalLM"]}}, "was not tried with EAGLE3"),
        ({"context": 131_072, "permits": 1}, "past the model's rope table of 65,536"),
        ({"preset": "rtx4090", "card_gib": 23.5, "permits": 12}, "give --context 11264, fewer --permits"),
        ({"preset": "rtx4090", "card_gib": 16.0}, "the weights leave no room"),
        ({"extra": ("--page-size", "64")}, "--page-size 64 with topk 1 silently changes the attention backend"),
        ({"extra": ("--page-size=64",)}, "--page-size 64 with topk 1"),
        ({"extra": ("--speculative-algorithm", "EAGLE")}, "accepts no draft token"),
        ({"extra": ("--attention-backend", "triton")}, "slower than no speculation at all"),
        ({"extra": ("--model-path", "x")}, "--model-path is set by the launcher"),
    ],
)
def test_what_would_end_in_a_crash_or_in_idle_drafts_is_refused_with_one_sentence(
    tmp_path: Path, changed: dict[str, Any], sentence: str
) -> None:
    sentences = found(tmp_path, **changed)
    assert len(sentences) == 1
    assert sentence in sentences[0]


def test_triton_in_a_preset_is_refused_for_eagle3_alone(tmp_path: Path) -> None:
    chosen = presets.load("h100")
    slow = chosen.model_copy(update={"engine": chosen.engine.model_copy(update={"attention_backend": "triton"})})
    model = folders.read(folder(tmp_path / "model", TARGET), what="model")
    draft = folders.read(folder(tmp_path / "draft", DRAFT), what="draft")

    def sentences(drafted: folders.ModelFolder | None) -> list[str]:
        return checks.findings(slow, model, drafted, card_bytes=80 * GIB, context=8_192, permits=1)

    assert ["flashinfer" in sentence for sentence in sentences(draft)] == [True]
    assert sentences(None) == []


def test_a_draft_window_is_refused_where_the_engine_would_end_at_its_start(tmp_path: Path) -> None:
    chosen = presets.load("h100")
    model = folders.read(folder(tmp_path / "model", TARGET), what="model")
    draft = folders.read(folder(tmp_path / "draft", DRAFT), what="draft")

    def sentences(backend: str) -> list[str]:
        windowed = chosen.model_copy(
            update={
                "engine": chosen.engine.model_copy(update={"attention_backend": backend}),
                "speculation": chosen.speculation.model_copy(update={"draft_window": 4_096}),
            }
        )
        return checks.findings(windowed, model, draft, card_bytes=80 * GIB, context=8_192, permits=1)

    assert ["draft_window 4096" in sentence for sentence in sentences("flashinfer")] == [True]
    assert sentences("fa3") == []


def test_folders_that_lack_something_are_refused(tmp_path: Path) -> None:
    with pytest.raises(presets.LaunchError, match="does not exist"):
        folders.read(tmp_path / "nothing", what="model")
    folder(tmp_path / "download" / "bf16", DRAFT)
    with pytest.raises(presets.LaunchError, match="did you mean its subfolder 'bf16'"):
        folders.read(tmp_path / "download", what="draft")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text('{"hidden_size": 1}')
    with pytest.raises(presets.LaunchError, match="num_attention_heads"):
        folders.read(tmp_path / "broken", what="model")
    bare = folders.read(folder(tmp_path / "bare", TARGET, weights=False, tokenizer=False), what="model")
    sentences = checks.findings(presets.load("h100"), bare, None, card_bytes=80 * GIB, context=8_192, permits=1)
    assert [("weight files" in sentence, "tokenizer.json" in sentence) for sentence in sentences] == [(False, True), (True, False)]
    sentences = checks.findings(
        presets.load("h100"), bare, None, card_bytes=80 * GIB, context=8_192, permits=1, extra=["--load-format", "dummy"]
    )
    assert ["tokenizer.json" in sentence for sentence in sentences] == [True]


def test_the_computed_size_is_close_to_the_files(tmp_path: Path) -> None:
    model = folders.read(folder(tmp_path / "model", TARGET, weights=False), what="model")
    draft = folders.read(folder(tmp_path / "draft", DRAFT, weights=False), what="draft")
    assert model.bytes_on_card == pytest.approx(16.36e9, rel=0.01)
    assert draft.bytes_on_card == pytest.approx(0.88e9, rel=0.02)
    assert model.kv_bytes_a_token(2) == 32 * 1024
    assert draft.kv_bytes_a_token(2) == 1024


def test_the_command_names_every_speculative_setting_and_the_plug_in() -> None:
    launch = command.launch(
        presets.load("h100"), model_path=Path("m"), draft_path=Path("d"), target=None, context=32_768, host="::", port=1, extra=["--x"]
    )  # fmt: skip
    text = " ".join(launch.arguments)
    assert "--speculative-algorithm EAGLE3" in text
    assert "--speculative-num-steps 3 --speculative-eagle-topk 1 --speculative-num-draft-tokens 4" in text
    assert "--constrained-json-disable-any-whitespace" in text
    assert "--page-size" not in text
    assert text.endswith("--x")
    assert launch.environment["SGLANG_EXTERNAL_MODEL_PACKAGE"] == "services.inference.sglang_plugin"
    assert launch.environment["SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION"] == "0"
    assert launch.url == "http://127.0.0.1:1"


def test_a_converted_model_is_served_without_the_plug_in(tmp_path: Path) -> None:
    llama = {key: value for key, value in TARGET.items() if key not in {"scale_emb", "scale_depth", "dim_model_base"}}
    target = folders.read(folder(tmp_path / "llama", llama | {"architectures": ["LlamaForCausalLM"]}), what="model")
    launch = command.launch(
        presets.load("h100"), model_path=target.path, draft_path=None, target=target, context=8_192, host="127.0.0.1", port=1
    )
    assert "SGLANG_EXTERNAL_MODEL_PACKAGE" not in launch.environment
    assert "--trust-remote-code" not in launch.arguments
    assert not any(argument.startswith("--speculative") for argument in launch.arguments)


def test_optional_settings_of_a_preset_reach_the_command(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    presets.write(presets.load("rtx4090"), file)
    text = file.read_text().replace("[speculation]", '[speculation]\ndraft_window = 4096\naux_scale = "residual"')
    file.write_text(text.replace('kv_cache_dtype = "auto"', 'kv_cache_dtype = "fp8_e5m2"\nquantization = "fp8"'))
    launch = command.launch(
        presets.load(str(file)), model_path=Path("m"), draft_path=Path("d"), target=None, context=8_192, host="127.0.0.1", port=1
    )
    line = " ".join(launch.arguments)
    assert "--speculative-draft-window-size 4096" in line
    assert "--kv-cache-dtype fp8_e5m2" in line
    assert "--quantization fp8" in line
    assert launch.environment["MINICPM_EAGLE3_AUX_SCALE"] == "residual"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("title = ", "cannot be read"),
        ("title = 'x'\ncard_gib = 1\n[engine]\ncontext_tokens = 1\nmem_fraction = 0.5\nnope = 1", "engine.nope"),
        ("title = 'x'\ncard_gib = 1\n[engine]\ncontext_tokens = 1\nmem_fraction = 0.5\n[speculation]\nsteps = 5", "draft_tokens must be 6"),
    ],
)
def test_a_preset_that_cannot_be_used_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(presets.LaunchError, match=sentence):
        presets.load(str(file))


def test_a_preset_survives_being_written(tmp_path: Path) -> None:
    presets.write(presets.load("h100"), tmp_path / "h100.toml")
    assert presets.load(str(tmp_path / "h100.toml")) == presets.load("h100")


def test_sglang_may_live_in_another_python_than_the_launcher() -> None:
    ended = CliRunner().invoke(app, ["serve", "--preset", "h100", "--python", "/usr/bin/python3", "--dry-run"])
    assert "\n  /usr/bin/python3 -m sglang.launch_server" in ended.output


def test_dry_run_prints_the_command_and_what_would_be_refused(tmp_path: Path) -> None:
    ended = CliRunner().invoke(app, ["serve", "--preset", "h100", "--dry-run"])
    assert ended.exit_code == 0
    assert "-m sglang.launch_server" in ended.stdout
    assert "refused: the model's folder 'models/MiniCPM4.1-8B' does not exist" in ended.stderr
    model, draft = folder(tmp_path / "model", TARGET), folder(tmp_path / "draft", DRAFT | {"hidden_size": 2048})
    paths = ["--model-path", str(model), "--draft-path", str(draft)]
    ended = CliRunner().invoke(app, ["serve", "--preset", "h100", *paths])
    assert ended.exit_code == 2
    assert "it is another model's" in ended.stderr


def test_the_cpu_preset_says_what_to_do_instead() -> None:
    ended = CliRunner().invoke(app, ["serve", "--preset", "cpu", "--dry-run"])
    assert ended.exit_code == 2
    assert "ollama run" in ended.stderr
