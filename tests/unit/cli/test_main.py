"""The command: quick to start, each sub-command found, and what its user can mend told in a sentence."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from services.cli.main import COMMANDS, load
from services.strategy.folder import new

SLOW = ("numpy", "torch", "aiokafka", "pydantic", "aiohttp", "tokenizers", "pandas")


def _ran(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AQUILINE_")}
    return subprocess.run(
        [sys.executable, "-c", "from services.cli.main import main; main()", *arguments],
        env={**clean, "COLUMNS": "200", **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_help_lists_every_command_without_importing_anything_slow() -> None:
    program = (
        "import sys\nfrom services.cli.main import app\n"
        "app(['--help'], standalone_mode=False)\n"
        f"print('slow:', sorted(set(sys.modules) & set({SLOW!r})))\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.splitlines()[-1] == "slow: []"
    for name in COMMANDS:
        assert f" {name} " in ran.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_is_there_with_its_help(name: str) -> None:
    command = load(name)
    assert command.name == name
    assert command.help


def test_an_unknown_command_is_refused() -> None:
    ran = _ran("fly")
    assert ran.returncode == 2
    assert "No such command 'fly'" in ran.stderr


def test_the_version_is_told() -> None:
    assert _ran("--version").stdout.startswith("aquiline 0.")


def test_good_settings_are_called_valid() -> None:
    ran = _ran("config", "check", AQUILINE_RUN_MODE="demo")
    assert ran.returncode == 0
    assert ran.stdout.startswith("The settings are valid: run mode demo,")


def test_wrong_settings_end_with_2_and_one_sentence() -> None:
    ran = _ran("config", "check", AQUILINE_FUSION__PERMITS="0")
    assert ran.returncode == 2
    assert ran.stderr.startswith("aquiline: fusion.permits = '0': ")
    assert len(ran.stderr.splitlines()) == 1


def test_a_configuration_whose_hooks_are_not_installed_is_refused_as_a_worker_would(tmp_path: Path) -> None:
    folder = tmp_path / "momentum"
    new(folder, "momentum")
    with (folder / "strategy.toml").open("a") as file:
        file.write('[hooks]\nguards = ["absent"]\n')
    ran = _ran("config", "check", AQUILINE_FUSION__STRATEGY=str(folder))
    assert ran.returncode == 2
    assert "hooks.guards names 'absent'" in ran.stderr


def test_a_configuration_whose_input_is_not_installed_is_refused_as_a_worker_would(tmp_path: Path) -> None:
    folder = tmp_path / "momentum"
    new(folder, "momentum")
    toml = folder / "strategy.toml"
    toml.write_text(f'inputs = ["notes", "absent"]\n{toml.read_text()}')
    ran = _ran("config", "check", AQUILINE_FUSION__STRATEGY=str(folder))
    assert ran.returncode == 2
    assert "inputs names 'absent', which no installed package registers" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


def test_a_file_that_settings_name_has_to_be_there(tmp_path: Path) -> None:
    absent = tmp_path / "ca.pem"
    ran = _ran("config", "check", AQUILINE_BUS__CA_FILE=str(absent))
    assert ran.returncode == 2
    assert ran.stderr == f"aquiline: bus.ca_file names '{absent}', which is not a file\n"


def test_the_settings_that_hold_are_shown_as_toml_with_secrets_masked(tmp_path: Path) -> None:
    file = tmp_path / "aquiline.toml"
    file.write_text('[engine]\nurls = ["http://user:hunter2@host:1"]\n')
    ran = _ran("config", "show", "--config", str(file), AQUILINE_BUS__PASSWORD="hunter2", AQUILINE_FUSION__PERMITS="9")
    assert ran.returncode == 0
    assert "hunter2" not in ran.stdout
    shown = tomllib.loads(ran.stdout)
    assert (shown["bus"]["password"], shown["fusion"]["permits"]) == ("**********", 9)
    assert shown["engine"]["urls"] == ["http://**********@host:1"]
