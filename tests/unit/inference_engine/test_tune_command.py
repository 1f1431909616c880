"""`aquiline engine tune` as a person runs it, with a package named sglang whose server is the simulator."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.cli.engine import app
from services.inference.launcher import presets
from tests.unit.inference_engine.build import DRAFT, TARGET, folder
from tests.unit.inference_engine.test_serving import free_port

_SERVER = """
import sys
from services.inference.simulator.__main__ import main

if sys.argv[sys.argv.index("--speculative-num-steps") + 1] == "5":
    raise SystemExit("torch.OutOfMemoryError: CUDA out of memory")
sys.exit(main(["--port", sys.argv[sys.argv.index("--port") + 1], "--time-scale", "0"]))
"""


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    package = tmp_path / "site" / "sglang"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "launch_server.py").write_text(_SERVER)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), str(Path.cwd())]))
    model, draft = folder(tmp_path / "model", TARGET), folder(tmp_path / "draft", DRAFT)
    return ["--model-path", str(model), "--draft-path", str(draft)]


def test_the_best_combination_becomes_a_preset_and_one_that_fails_is_told(tmp_path: Path, paths: list[str]) -> None:
    cells = ["--lengths", "1024", "--at-once", "1,2", "--rounds", "1", "--answer-tokens", "16"]
    grid = ["--steps", "2,5", "--windows", "0", "--port", str(free_port())]
    ended = CliRunner().invoke(app, ["tune", "--preset", "h100", "--out", str(tmp_path / "out"), *paths, *cells, *grid])
    assert ended.exit_code == 0, ended.output
    assert "[3/3] 5/1/6 fa3: starting" in ended.stderr
    assert "CUDA out of memory" in ended.stderr
    best = re.search(r"best: (\S+) fa3", ended.stdout)
    assert best is not None
    tuned = presets.load(str(tmp_path / "out" / "tuned.toml")).speculation
    assert best[1] == f"{tuned.steps}/{tuned.topk}/{tuned.draft_tokens}"
    assert tuned.steps in {2, 3}


def test_a_draft_of_another_model_is_refused_for_every_combination(tmp_path: Path, paths: list[str]) -> None:
    other = folder(tmp_path / "other", DRAFT | {"hidden_size": 2_048})
    arguments = ["tune", "--preset", "h100", "--out", str(tmp_path / "out"), *paths[:2], "--draft-path", str(other)]
    ended = CliRunner().invoke(app, [*arguments, "--steps", "2", "--windows", "0", "--lengths", "1024"])
    assert ended.exit_code == 2
    assert ended.stderr.count("it is another model's") == 2
    assert "no combination could be measured" in ended.stderr


def test_dry_run_lists_the_combinations() -> None:
    ended = CliRunner().invoke(app, ["tune", "--preset", "h100", "--out", "x", "--steps", "2", "--windows", "0,4096", "--dry-run"])
    assert ended.stdout.splitlines() == ["3/1/4 fa3", "2/1/3 fa3", "2/1/3 fa3 window 4096"]


def test_nothing_of_ours_imports_the_plug_in() -> None:
    importing = re.compile(r"^\s*(from|import) services\.inference\.sglang_plugin", re.MULTILINE)
    for file in Path("services").rglob("*.py"):
        if "sglang_plugin" not in file.parts:
            assert not importing.search(file.read_text(encoding="utf-8")), file
