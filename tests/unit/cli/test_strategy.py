"""`aquiline strategy`, from nothing to a prompt that one may read."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from services.cli.strategy import app
from services.core.fusion_settings import FusionSettings
from services.core.lifecycle import explain
from services.core.settings import Settings
from services.core.tokenizer import Tokenizer
from services.fusion.prompt.version import version_of
from services.fusion.service import load_tokenizer
from services.strategy.folder import FEATURES, INSTRUCTIONS, SHIPPED, TOML, new, read
from services.strategy_check.prompt_preview import features_of, preview


def run(*arguments: str) -> tuple[int, str]:
    ran = CliRunner(env={"COLUMNS": "200"}).invoke(app, arguments)
    error: Any = ran.exception
    if error is not None and (explained := explain(error)) is not None:
        return explained[0], "; ".join(explained[1])
    assert error is None or isinstance(error, SystemExit), error
    return ran.exit_code, ran.output


def tokenizer() -> Tokenizer:
    return load_tokenizer(Settings().engine)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "momentum"
    status, said = run("new", str(made))
    assert (status, str(made) in said) == (0, True)
    file = made / TOML
    file.write_text(file.read_text().replace("1m = 256", "1m = 40").replace("epoch_slots = 64", "epoch_slots = 16"))
    return made


def test_a_new_strategy_passes_its_check_which_says_what_a_prompt_costs(folder: Path) -> None:
    status, said = run("check", str(folder))
    assert status == 0
    assert said.startswith(f"{version_of(read(folder))}: the longest prompt has ")
    assert "MiB of KV cache" in said


def test_the_prompt_is_shown_whole_with_its_own_feature_and_its_cached_part_marked(folder: Path) -> None:
    status, said = run("show", str(folder))
    assert status == 0
    cached, _, tail = said.partition("=== new in each decision, ")
    assert "mom_12, the change over 12 bars, of this desk's own" in cached
    assert " mom_12=" in tail
    assert "mom_12=" not in cached


async def test_the_tokens_that_are_counted_are_those_of_the_prompt(folder: Path) -> None:
    settings = Settings(fusion=FusionSettings.model_validate({"strategy": folder, "window_bars": 40, "epoch_slots": 16}))
    made = await preview(settings, tokenizer(), features_of(folder))
    assert 0 < made.rules_tokens < made.prefix_tokens < made.tokens
    end = await preview(settings, tokenizer(), features_of(folder), end_of_epoch=True)
    assert end.tokens > made.tokens


def test_facts_without_what_levels_are_measured_in_are_an_error(folder: Path) -> None:
    file = folder / TOML
    file.write_text(file.read_text().replace('names = ["atr"]', 'names = ["macd"]'))
    status, said = run("check", str(folder))
    assert status == 1
    assert "error: the answer gives prices in tenths of one atr" in said


def test_features_that_change_from_call_to_call_are_an_error(folder: Path) -> None:
    (folder / FEATURES).write_text("calls = []\ndef features(bars):\n    calls.append(1)\n    return {'mom_12': len(calls) / 7}\n")
    status, said = run("check", str(folder))
    assert status == 1
    assert (
        "error: the same bars gave two different prompts, in the facts mom_12: features.py, hooks and inputs must not read the clock"
        in said
    )


def test_a_feature_that_nothing_here_computes_is_noted(folder: Path) -> None:
    (folder / FEATURES).unlink()
    status, said = run("check", str(folder))
    assert status == 0
    assert "note: mom_12: there is no features.py" in said


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("return {'mom_12': bars.close[-13]}", "raised IndexError: index -13 is out of bounds for axis 0 with size 1 (with 1 bar)"),
        ("return {'mom_12': 1 / 0}", "raised ZeroDivisionError: division by zero (with 288 bars)"),
        ("while True: pass", "was interrupted after 50 ms of computing (with 288 bars)"),
        ("return 3", "returned '3', expected numbers by name"),
        ("return {'atr': 1.0}", "the feature name 'atr' is taken"),
    ],
)
def test_features_that_fail_are_an_error_of_the_check_that_says_on_how_many_bars(folder: Path, body: str, told: str) -> None:
    (folder / FEATURES).write_text(f"def features(bars):\n    {body}\n")
    for command in ("check", "show"):
        status, said = run(command, str(folder))
        assert (status, f"{FEATURES}: features(bars) " in said, told in said) == (2, True, True), said


def test_a_fact_that_nothing_makes_is_noted_with_the_name_that_may_be_meant(folder: Path) -> None:
    file = folder / TOML
    file.write_text(file.read_text().replace("mom_12", "mom_21").replace('"ema_fast"', '"ema_fats"'))
    status, said = run("check", str(folder))
    assert status == 0
    assert "note: mom_21: features.py does not compute it" in said
    assert "did you mean mom_12?" in said
    assert "did you mean ema_fast?" in said
    assert "note: features.py computes mom_12, which neither [[facts]] nor columns name" in said


def test_triggers_that_never_ask_are_an_error_and_an_interval_that_nothing_builds_is_noted(folder: Path) -> None:
    file = folder / TOML
    text = file.read_text().replace("trigger_on_closed_bar = true", "trigger_on_closed_bar = false").replace("1h = 64", "4h = 64")
    file.write_text(text)
    status, said = run("check", str(folder))
    assert status == 1
    assert "error: no rule of [triggers] and no hook makes a trigger" in said
    assert 'note: 4h: market.aggregate of these settings does not build it; set market.aggregate = { 1m = ["4h"] }' in said


def test_the_longest_windows_that_are_allowed_are_checked_too(folder: Path) -> None:
    file = folder / TOML
    file.write_text(file.read_text().replace("1h = 64", "1w = 10000"))
    status, said = run("check", str(folder))
    assert (status, "tokens, more than the context of" in said) == (1, True), said


def test_one_other_word_is_the_whole_difference_of_two_strategies(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "reworded"
    shutil.copytree(folder, other)
    (other / INSTRUCTIONS).write_text((folder / INSTRUCTIONS).read_text().replace("stalled", "faded"))
    status, said = run("diff", str(folder), str(other))
    assert status == 1
    versions, words = said.splitlines()[:2], said.splitlines()[2:]
    assert len({line.rpartition(": ")[2] for line in versions}) == 2
    changed = [line for line in words if line[0] in "+-" and not line.startswith(("+++", "---"))]
    assert [line.replace("stalled", "faded")[1:] for line in changed[:1]] == [line[1:] for line in changed[1:]]


def test_two_strategies_are_compared_by_value_and_word(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "calm"
    new(other, "calm")
    (other / INSTRUCTIONS).write_text((folder / INSTRUCTIONS).read_text().replace("momentum desk", "calm desk"))
    status, said = run("diff", str(folder), str(other))
    assert status == 1
    assert "name: 'momentum' -> 'calm'" in said
    assert "intervals.1m: 40 -> 256" in said
    assert "-You decide for a momentum desk.\n+You decide for a calm desk." in said
    assert run("diff", str(folder), str(folder)) == (0, f"{folder}: {version_of(read(folder))}\n" * 2 + "They say the same.\n")


def test_a_mistake_is_a_sentence_and_no_traceback(folder: Path, tmp_path: Path) -> None:
    (folder / TOML).write_text("name = 3")
    for arguments in (("check", str(folder)), ("show", str(folder)), ("diff", str(folder), str(SHIPPED)), ("new", str(folder))):
        status, said = run(*arguments)
        assert status == 2
        assert str(folder) in said
    assert run("check", str(tmp_path / "none"))[1].endswith("`aquiline strategy new none` makes one")
