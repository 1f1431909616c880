"""A strategy's folder: what it may say, and what is said of its mistakes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from services.core.fusion_settings import FusionSettings
from services.core.settings import SettingsError, load
from services.fusion.prompt.version import version_of
from services.strategy.folder import INSTRUCTIONS, SHIPPED, TOML, StrategyError, new, read, shipped
from services.strategy.model import Strategy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "momentum"
    new(made, "momentum")
    return made


def change(file: Path, before: str, after: str) -> None:
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after))


def test_the_shipped_folder_says_what_the_settings_default_to() -> None:
    assert load(None, {"fusion": {"strategy": str(SHIPPED)}}).fusion == FusionSettings()


def test_a_new_strategy_is_whole_and_names_its_own_feature(folder: Path) -> None:
    strategy = read(folder)
    assert (strategy.name, strategy.units["mom_12"]) == ("momentum", "return")
    assert "mom_12" in strategy.shown_features
    assert (folder / "features.py").is_file()


def test_a_new_strategy_overwrites_nothing_and_needs_a_usable_name(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(StrategyError, match="exists already"):
        new(folder, "momentum")
    with pytest.raises(StrategyError, match="My Strategy"):
        new(tmp_path / "other", "My Strategy")
    assert not (tmp_path / "other").exists()


def test_comments_and_spaces_change_no_hash_and_a_word_and_a_limit_do(folder: Path) -> None:
    before = read(folder).hash
    (folder / TOML).write_text("# a comment\n" + (folder / TOML).read_text())
    (folder / INSTRUCTIONS).write_text((folder / INSTRUCTIONS).read_text() + "\n\n")
    assert read(folder).hash == before
    change(folder / INSTRUCTIONS, "momentum desk", "patient desk")
    worded = read(folder).hash
    change(folder / TOML, "cool_down_ms = 0", "cool_down_ms = 60000")
    assert len({before, worded, read(folder).hash}) == 3


def test_the_order_of_intervals_facts_and_columns_is_part_of_the_hash() -> None:
    values = shipped().model_dump()
    others = [
        values | {"facts": values["facts"][::-1]},
        values | {"columns": values["columns"][::-1]},
        values | {"intervals": {"1m": 256, "15m": 64}},
    ]
    assert len({Strategy.model_validate(one).hash for one in [values, *others]}) == 4


@pytest.mark.parametrize(
    ("file", "before", "after", "told"),
    [
        (TOML, "min_bars = 20", "min_bars = -3", ["strategy.toml", "guard.min_bars = -3", "greater than 0"]),
        (TOML, "min_bars = 20", "min_bar = 20", ["guard.min_bar", "did you mean guard.min_bars?"]),
        (TOML, 'unit = "distance"', 'unit = "ticks"', ["facts.1.unit = 'ticks'", "'distance'"]),
        (TOML, 'names = ["atr"]\nunit = "distance"', 'names = ["atr"]\nunit = "number"', ["atr is a distance", "unit = 'distance'"]),
        (TOML, 'names = ["bb_pos"]', 'names = ["rsi"]', ["facts names rsi more than once"]),
        (TOML, "1m = 256", "4h = 256", ["['4h', '15m', '1h']", "fastest to the slowest"]),
        (TOML, "1m = 256", "minute = 256", ["minute"]),
        (TOML, "1m = 256", "1m = 10001", ["intervals.1m = 10001", "less than or equal to 10000"]),
        (
            TOML,
            "min_gap_ms = 0",
            "min_gap_ms = 99999999999999999999",
            ["triggers.min_gap_ms = 99999999999999999999", "at most 9007199254740992"],
        ),
        (TOML, "max_jump = 1.8", "max_jump = inf", ["guard.max_jump = inf", "finite"]),
        (TOML, 'version = "1"', "version = 1", ["version = 1 is a number", 'version = "1"']),
        (TOML, '"volume"', '"turnover"', ["columns.4 = 'turnover'", "or a feature of your own as a table with feature, label and unit"]),
        (TOML, '"volume"', '"volum"', ["columns.4 = 'volum'", "did you mean 'volume'?"]),
        (TOML, '"volume"', '{ feature = "volume", label = "v", unit = "number" }', ["volume is no feature"]),
        (TOML, 'meaning = "the average true range of 14 bars"', "", ["atr has no meaning"]),
        (TOML, 'name = "momentum"', 'name = "Mo"', ["name = 'Mo'"]),
        (TOML, 'name = "momentum"', 'name = "momentum"\ninstructions = "buy"', ["instructions stand in"]),
        (TOML, "[guard]", "[guard", ["is not TOML"]),
        (INSTRUCTIONS, "momentum", "moment\x1bum", ["instructions.md", "'\\x1b'"]),
    ],
)
def test_a_mistake_is_told_with_file_key_value_and_what_was_expected(
    folder: Path, file: str, before: str, after: str, told: list[str]
) -> None:
    change(folder / file, before, after)
    with pytest.raises(StrategyError) as caught:
        read(folder)
    assert [part for part in told if part not in str(caught.value)] == []
    assert file in str(caught.value)


def test_empty_instructions_and_a_missing_file_are_refused_by_name(folder: Path) -> None:
    (folder / INSTRUCTIONS).write_text("\n")
    with pytest.raises(StrategyError, match=r"instructions\.md.*empty"):
        read(folder)
    (folder / INSTRUCTIONS).unlink()
    with pytest.raises(StrategyError, match=r"instructions\.md cannot be read"):
        read(folder)


def test_instructions_that_are_too_long_are_refused_with_their_length(folder: Path) -> None:
    for text, told in (("word " * 4_001, "20,005 characters; at most 20,000"), ("word " * 200_000, "1,000,000 bytes; at most 200,000")):
        (folder / INSTRUCTIONS).write_text(text)
        with pytest.raises(StrategyError, match=told):
            read(folder)


def test_text_in_another_encoding_is_refused_by_file_and_byte(folder: Path) -> None:
    for name in (INSTRUCTIONS, TOML):
        text = (folder / name).read_bytes()
        (folder / name).write_bytes(b"caf\xe9" + text)
        with pytest.raises(StrategyError, match=rf"{name} is not UTF-8 text \(byte 3\)"):
            read(folder)
        (folder / name).write_bytes(text)


def test_a_byte_order_mark_and_the_line_ends_of_windows_change_no_hash(folder: Path) -> None:
    before = read(folder)
    for name in (INSTRUCTIONS, TOML):
        file = folder / name
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    assert read(folder) == before
    assert read(folder).hash == before.hash


@pytest.mark.parametrize("name", [TOML, INSTRUCTIONS])
def test_a_pipe_a_folder_and_a_broken_link_in_place_of_a_file_are_refused_at_once(folder: Path, name: str) -> None:
    file = folder / name
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(StrategyError, match=f"{name} is not a file"):
        read(folder)
    file.unlink()
    file.mkdir()
    with pytest.raises(StrategyError, match=f"{name} is not a file"):
        read(folder)
    file.rmdir()
    file.symlink_to("nowhere")
    with pytest.raises(StrategyError, match=f"{name} cannot be read: No such file"):
        read(folder)


def test_links_to_files_are_followed_as_a_mounted_config_map_is_made_of_them(folder: Path) -> None:
    before = read(folder)
    (folder / "..data").mkdir()
    for name in (TOML, INSTRUCTIONS):
        (folder / name).rename(folder / "..data" / name)
        (folder / name).symlink_to(Path("..data") / name)
    assert read(folder) == before


def test_a_file_in_place_of_its_folder_is_told_with_the_folder(folder: Path) -> None:
    with pytest.raises(StrategyError, match=f"name its folder, {folder}"):
        read(folder / TOML)


def test_a_place_that_cannot_be_written_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StrategyError, match="file/momentum cannot be written: Not a directory"):
        new(tmp_path / "file" / "momentum", "momentum")


def test_of_many_mistakes_of_a_kind_the_first_are_told_and_the_others_counted(folder: Path) -> None:
    change(folder / TOML, "names = ", "nams = ")
    with pytest.raises(StrategyError, match=r"facts\.0\.names is missing.*12 more of the kind$"):
        read(folder)


def test_two_strategies_of_one_name_and_version_have_two_prompt_versions(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "copy"
    shutil.copytree(folder, other)
    assert version_of(read(other)) == version_of(read(folder))
    change(other / INSTRUCTIONS, "momentum desk", "patient desk")
    assert (read(other).name, read(other).version) == (read(folder).name, read(folder).version)
    assert version_of(read(other)) != version_of(read(folder))


def test_settings_take_a_strategy_relative_to_their_file_and_override_what_is_operational_alone(folder: Path) -> None:
    file = folder.parent / "aquiline.toml"
    file.write_text('[fusion]\nstrategy = "momentum"\npermits = 7\nmax_staleness_ms = 900\n')
    fusion = load(file).fusion
    assert (fusion.strategy, fusion.permits, fusion.max_staleness_ms) == (read(folder), 7, 900)
    file.write_text('[fusion]\nstrategy = "momentum"\nmin_bars = 5\nwindow_bars = 300\n')
    with pytest.raises(SettingsError, match=r"fusion\.min_bars to \[guard\], fusion\.window_bars to \[intervals\]"):
        load(file)
    file.write_text('[fusion]\nstrategy = "nothing"\n')
    with pytest.raises(SettingsError, match="nothing is not a folder"):
        load(file)


def test_the_environment_may_name_a_strategy_and_one_run_may_override_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AQUILINE_FUSION__STRATEGY", str(folder))
    assert load().fusion.strategy.name == "momentum"
    assert load(None, {"fusion": {"min_bars": 5}}).fusion.min_bars == 5
    monkeypatch.setenv("AQUILINE_FUSION__MIN_BARS", "5")
    with pytest.raises(SettingsError, match=r"fusion\.min_bars"):
        load()


def test_slower_intervals_may_have_windows_of_their_own(folder: Path) -> None:
    change(folder / TOML, "1h = 64", "1h = 24")
    fusion = load(None, {"fusion": {"strategy": str(folder)}}).fusion
    assert [fusion.slow_window(interval) for interval in fusion.intervals[1:]] == [64, 24]
    assert FusionSettings.model_validate(fusion.model_dump(mode="json")) == fusion
