"""What the launcher refuses, what it estimates, and the command that it makes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from services.cli.engine import app
from services.inference.launcher import checks, command, folders, presets
from services.inference.launcher.longrope import overlay
from tests.unit.doctor.test_prompt_ids import byte_level_tokenizer, model_folder
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
    return checks.findings(chosen, model, drafted, gpu_bytes=int(card_gib * GIB), context=context, permits=permits, extra=extra)


@pytest.mark.parametrize("preset", ["h100", "h100-fp8", "rtx5090", "rtx4090"])
def test_every_preset_starts_with_minicpm_on_its_own_card(tmp_path: Path, preset: str) -> None:
    chosen = presets.load(preset)
    assert found(tmp_path, preset=preset, card_gib=chosen.card_gib, context=chosen.engine.context_tokens) == []


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"draft": {"hidden_size": 2048}}, "hidden states of 2048, but the target's are 4096"),
        ({"draft": {"vocab_size": 32_000}}, "vocabulary of 32,000 is not the target's of 73,448"),
        ({"draft": {"draft_vocab_size": None}}, "has no draft_vocab_size"),
        ({"draft": {"max_position_embeddings": 16_384}}, "of 16,384 is below --context 32,768"),
        ({"draft": {"rope_theta": 500_000.0}}, "rope_theta 500,000 and the target with 10,000"),
        ({"preset": "h100-fp8", "target": {"quantization_config": {"quant_method": "gptq", "bits": 4}}}, "cannot quantize again"),
        ({"preset": "rtx4090-gptq", "card_gib": 23.5}, "this one is not quantized: download the GPTQ checkpoint"),
        (
            {"preset": "rtx4090-awq", "card_gib": 23.5, "target": {"quantization_config": {"quant_method": "gptq", "bits": 4}}},
            "this one is gptq",
        ),
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


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_a_checkpoint_of_four_bits_leaves_room_on_a_small_card(tmp_path: Path, method: str) -> None:
    stored = {"quantization_config": {"quant_method": method, "bits": 4, "group_size": 128}}
    assert found(tmp_path, preset=f"rtx4090-{method}", card_gib=23.5, target=stored, permits=4) == []
    bare = folders.read(folder(tmp_path / "bare", TARGET | stored, weights=False), what="model")
    assert 4.5 * GIB < bare.bytes_on_card < 5.5 * GIB
    launch = command.launch(
        presets.load(f"rtx4090-{method}"), model_path=Path("m"), draft_path=Path("d"), target=bare, context=8_192, host="::1", port=1
    )
    assert f"--quantization {method}_marlin" in " ".join(launch.arguments)
    assert "--speculative-draft-model-quantization unquant" in " ".join(launch.arguments)


def test_a_kv_cache_that_would_change_the_kernels_is_refused(tmp_path: Path) -> None:
    chosen = presets.load("h100-fp8")
    wrong = chosen.model_copy(update={"engine": chosen.engine.model_copy(update={"kv_cache_dtype": "fp8_e5m2"})})
    model = folders.read(folder(tmp_path / "model", TARGET), what="model")
    sentences = checks.findings(wrong, model, None, gpu_bytes=80 * GIB, context=8_192, permits=1)
    assert ["fp8_e4m3" in sentence for sentence in sentences] == [True]


def test_a_model_that_was_not_tried_with_a_draft_is_served_without_one(tmp_path: Path) -> None:
    other = folders.read(folder(tmp_path / "model", TARGET | {"architectures": ["MiniCPMSALAForCausalLM"]}), what="model")
    draft = folders.read(folder(tmp_path / "draft", DRAFT), what="draft")
    preset = presets.load("h100")
    assert checks.findings(preset, other, None, gpu_bytes=80 * GIB, context=8_192, permits=1) == []
    sentences = checks.findings(preset, other, draft, gpu_bytes=80 * GIB, context=8_192, permits=1)
    assert ["--no-speculation" in sentence for sentence in sentences] == [True]


SALA = TARGET | {
    "architectures": ["MiniCPMSALAForCausalLM"],
    "max_position_embeddings": 524_288,
    "mixer_types": [*["minicpm4"] * 8, *["lightning-attn"] * 24],
}


@pytest.mark.parametrize("with_draft", [True, False])
def test_minicpm_sala_starts_without_speculation_on_the_backend_that_sglang_has_for_it(tmp_path: Path, *, with_draft: bool) -> None:
    """Given a draft or not: SGLang's backend for it raises on a draft's tokens to verify."""
    model, draft = folder(tmp_path / "model", SALA), tmp_path / "draft"
    if with_draft:
        folder(draft, DRAFT)
    options = ["serve", "--preset", "h100", "--model-path", str(model), "--draft-path", str(draft), "--context", "262144", "--dry-run"]
    ended = CliRunner().invoke(app, options)
    assert (ended.exit_code, "refused" in ended.stderr) == (0, False)
    assert "24 of 32 layers attend linearly" in ended.stderr
    for absent in ("--speculative", "--attention-backend", "SGLANG_EXTERNAL_MODEL_PACKAGE", "--trust-remote-code"):
        assert absent not in ended.stdout
    assert "--context-length 262144" in ended.stdout
    read = folders.read(model, what="model")
    dense = folders.read(folder(tmp_path / "dense", TARGET), what="model")
    assert 4 * read.kv_bytes_a_token(2) == dense.kv_bytes_a_token(2)


LONG = {"rope_type": "longrope", "short_factor": [1.5] * 64, "long_factor": [1.5] * 64, "original_max_position_embeddings": 65_536}


def test_longrope_opens_the_context_in_a_folder_that_differs_in_its_config_alone(tmp_path: Path) -> None:
    model = folder(tmp_path / "model", TARGET | {"rope_scaling": LONG})
    draft = folder(tmp_path / "draft", DRAFT)
    options = ["serve", "--preset", "h100", "--model-path", str(model), "--draft-path", str(draft), "--permits", "1", "--dry-run"]
    refused = CliRunner().invoke(app, [*options, "--context", "131072"])
    assert "or --longrope for a model whose config.json names" in refused.stderr
    for _again in range(2):
        ended = CliRunner().invoke(app, [*options, "--longrope"])
        assert "refused" not in ended.stderr
        assert "the draft's rope_scaling is not the target's" in ended.stderr
        assert "--context-length 131072" in ended.stdout
        for name, config in (("model", TARGET | {"rope_scaling": LONG}), ("draft", DRAFT)):
            opened = tmp_path / f"{name}-context-131072"
            assert str(opened) in ended.stdout
            assert json.loads((opened / "config.json").read_text()) == config | {"max_position_embeddings": 131_072}
            assert (opened / "model.safetensors").resolve() == tmp_path / name / "model.safetensors"
    assert json.loads((model / "config.json").read_text())["max_position_embeddings"] == 65_536


def test_longrope_takes_the_native_length_where_the_config_does_not_name_it(tmp_path: Path) -> None:
    unnamed = {key: value for key, value in LONG.items() if key != "original_max_position_embeddings"}
    model = folders.read(folder(tmp_path / "model", TARGET | {"rope_scaling": unnamed}), what="model")
    assert folders.read(overlay(model, 131_072), what="model").rope_scaling == LONG


@pytest.mark.parametrize(
    ("scaling", "sentence"),
    [
        (None, "names no LongRoPE factors"),
        ({"type": "yarn", "factor": 2}, "names no LongRoPE"),
        (LONG | {"long_factor": [1.0]}, "has 1 factors"),
    ],
)
def test_longrope_without_the_models_own_factors_is_refused(tmp_path: Path, scaling: dict[str, Any] | None, sentence: str) -> None:
    model = folder(tmp_path / "model", TARGET | {"rope_scaling": scaling})
    ended = CliRunner().invoke(
        app, ["serve", "--preset", "h100", "--model-path", str(model), "--no-speculation", "--longrope", "--dry-run"]
    )
    assert sentence in ended.stderr


def test_triton_in_a_preset_is_refused_for_eagle3_alone(tmp_path: Path) -> None:
    chosen = presets.load("h100")
    slow = chosen.model_copy(update={"engine": chosen.engine.model_copy(update={"attention_backend": "triton"})})
    model = folders.read(folder(tmp_path / "model", TARGET), what="model")
    draft = folders.read(folder(tmp_path / "draft", DRAFT), what="draft")

    def sentences(drafted: folders.ModelFolder | None) -> list[str]:
        return checks.findings(slow, model, drafted, gpu_bytes=80 * GIB, context=8_192, permits=1)

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
        return checks.findings(windowed, model, draft, gpu_bytes=80 * GIB, context=8_192, permits=1)

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
    sentences = checks.findings(presets.load("h100"), bare, None, gpu_bytes=80 * GIB, context=8_192, permits=1)
    assert [("weight files" in sentence, "tokenizer.json" in sentence) for sentence in sentences] == [(False, True), (True, False)]
    sentences = checks.findings(
        presets.load("h100"), bare, None, gpu_bytes=80 * GIB, context=8_192, permits=1, extra=["--load-format", "dummy"]
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
    text = file.read_text().replace("[speculation]", "[speculation]\ndraft_window = 4096")
    file.write_text(text.replace('kv_cache_dtype = "auto"', 'kv_cache_dtype = "fp8_e5m2"\nquantization = "fp8"'))
    launch = command.launch(
        presets.load(str(file)), model_path=Path("m"), draft_path=Path("d"), target=None, context=8_192, host="127.0.0.1", port=1
    )
    line = " ".join(launch.arguments)
    assert "--speculative-draft-window-size 4096" in line
    assert "--kv-cache-dtype fp8_e5m2" in line
    assert "--quantization fp8" in line


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


def test_a_model_trained_on_other_ids_than_the_settings_make_is_refused(tmp_path: Path) -> None:
    model = folder(tmp_path / "model", TARGET)
    model_folder(model, byte_level_tokenizer(), "{% for message in messages %}{{ message['content'] }}{% endfor %}")
    options = ["serve", "--preset", "h100", "--model-path", str(model), "--no-speculation", "--permits", "1", "--dry-run"]
    assert "refused: the model was trained on other ids than the settings make: token 0" in CliRunner().invoke(app, options).stderr
    model_folder(model, byte_level_tokenizer())
    assert "trained on other ids" not in CliRunner().invoke(app, options).stderr
