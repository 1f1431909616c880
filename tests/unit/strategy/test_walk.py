"""docs/strategies.md can be followed: its commands take their arguments, and its files are read as it says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from deploy.check.commands import refusal
from deploy.check.result import REPOSITORY
from schemas import RunMode
from services.core.settings import SettingsError, load
from services.market.own_features import load_features
from services.strategy.folder import TOML, new, read

PAGE = (REPOSITORY / "docs" / "strategies.md").read_text(encoding="utf-8")
WALK = PAGE.partition("## The folder")[0]
TYPED = re.findall(r"^(?:[A-Z_]+=\S+ )?(aquiline .*)$", "\n".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)), re.MULTILINE)


def test_the_page_has_the_commands_of_the_walk() -> None:
    named = {shlex.split(one, comments=True)[1] for one in TYPED}
    assert named >= {"strategy", "replay", "market", "config", "topics", "doctor", "shadow", "promote", "demo"}


@pytest.mark.parametrize("command", TYPED)
def test_each_command_takes_its_arguments(command: str) -> None:
    _, name, *arguments = shlex.split(command, comments=True)
    assert refusal(name, arguments) is None


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Return a folder with what the walk writes: the strategy with the intervals that it shows, and `shadow.toml`."""
    intervals, shadow = re.findall(r"```toml\n(.*?)```", WALK, re.DOTALL)
    new(tmp_path / "momentum", "momentum")
    file = tmp_path / "momentum" / TOML
    file.write_text(re.sub(r"(?ms)^\[intervals\]\n.*?\n\n", f"[intervals]\n{intervals}\n", file.read_text()))
    (tmp_path / "shadow.toml").write_text(shadow)
    return tmp_path


def test_the_shadow_of_the_walk_starts_with_its_strategy_and_features_from_any_folder(site: Path) -> None:
    settings = load(site / "shadow.toml")
    assert (settings.run_mode, settings.fusion.strategy) == (RunMode.SHADOW, read(site / "momentum"))
    assert settings.fusion.intervals == ["1d", "1w"]
    assert settings.market.features_file == site / "momentum" / "features.py"
    assert callable(load_features(settings.market.features_file))


def test_the_candidate_of_the_walk_is_lives_file_less_what_the_check_names(site: Path) -> None:
    live = '[fusion]\ngroup = "desk"\nintervals = ["1d", "1w"]\nwindow_bars = 256\nmin_bars = 20\n'
    candidate = site / "candidate.toml"
    candidate.write_text(f'run_mode = "shadow"\n{live}strategy = "momentum"\n')
    with pytest.raises(SettingsError) as caught:
        load(candidate)
    named = re.findall(r"fusion\.(\w+) to \[\w+\]", str(caught.value))
    assert sorted(named) == ["intervals", "min_bars", "window_bars"]
    left = [line for line in candidate.read_text().splitlines() if line.split(" ")[0] not in named]
    candidate.write_text("\n".join(left))
    assert load(candidate).fusion.strategy == read(site / "momentum")
