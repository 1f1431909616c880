"""The contracts on imports in `pyproject.toml`, which `make check` holds: an import in the wrong direction breaks the right one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]

PLANTED = {
    "schemas/signal.py": ("services.core.clock", "schemas import nothing of ours"),
    "services/core/clock.py": ("services.market.books", "core imports only schemas and strategy"),
    "services/strategy/model.py": ("services.core.clock", "a strategy imports only schemas"),
    "services/vision/books.py": ("services.market.series", "no service imports another, but for the engine protocol"),
    "services/fusion/state/epochs.py": ("services.fusion.prompt.wording", "fusion's rooms import only rooms below them"),
    "services/fusion/state/book.py": ("services.inference.engine", "fusion's state and table inputs know of no engine"),
    "services/feeds/samples.py": (
        "services.replay.export_log",
        "packages that compose services import no other one of them without a reason",
    ),
    "services/backtest/runner.py": ("aquiline", "nothing imports the Python face"),
    "aquiline/_sync.py": ("services.cli.options", "the Python face imports no command"),
    "services/market/service.py": ("services.cli.main", "services import nothing that composes them, and nothing imports the command"),
}
"""A file, the module that it must not import, and the contract that says so."""


def test_an_import_in_the_wrong_direction_breaks_its_contract(tmp_path: Path) -> None:
    for folder in ("aquiline", "schemas", "services"):
        shutil.copytree(REPOSITORY / folder, tmp_path / folder, ignore=lambda _, names: [one for one in names if one == "data"])
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    assert _broken(tmp_path) == set()
    for file, (module, _) in PLANTED.items():
        with (tmp_path / file).open("a") as source:
            source.write(f"\nimport {module}\n")
    assert _broken(tmp_path) == {contract for _, contract in PLANTED.values()}


def _broken(folder: Path) -> set[str]:
    """Return the names of the contracts that are broken in `folder`."""
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    broken = {line.partition(" BROKEN")[0] for line in ran.stdout.splitlines() if " BROKEN" in line}
    assert (ran.returncode == 0) == (not broken), ran.stdout + ran.stderr
    return broken
