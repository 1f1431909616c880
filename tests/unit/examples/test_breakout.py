"""The example package of hooks, installed as its user would and checked with its strategy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
EXAMPLE = REPOSITORY / "examples" / "breakout"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the package into a folder and return it."""
    target, source = tmp_path_factory.mktemp("installed"), tmp_path_factory.mktemp("source") / "breakout"
    source.mkdir()
    for name in ("pyproject.toml", "aquiline_breakout.py"):
        (source / name).write_bytes((EXAMPLE / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--target", str(target)]
    subprocess.run([*pip, str(source)], check=True)
    return target


def aquiline(installed: Path | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = [str(REPOSITORY), *([] if installed is None else [str(installed)])]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AQUILINE_")}
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    command = [sys.executable, "-c", "from services.cli.main import main; main()", "strategy", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_its_strategy_passes_the_check_and_the_hooks_facts_are_in_the_prompt(installed: Path) -> None:
    ran = aquiline(installed, "check", str(EXAMPLE / "strategy"))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.startswith("breakout-")
    shown = aquiline(installed, "show", str(EXAMPLE / "strategy")).stdout
    assert "channel_high and channel_low, the highest high and the lowest low of the 20 bars before" in shown
    assert " channel_pos=" in shown.partition("=== new in each decision")[2]


def test_without_the_package_the_missing_hook_is_named() -> None:
    ran = aquiline(None, "check", str(EXAMPLE / "strategy"))
    assert ran.returncode == 2
    assert "'channel', which no installed package registers" in ran.stderr
    assert "Traceback" not in ran.stderr
