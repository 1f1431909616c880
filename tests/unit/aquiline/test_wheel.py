"""The wheel installs the Python face and the command."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]


def test_the_wheel_installs_the_package_with_its_types_and_the_command(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(tmp_path)]
    subprocess.run([*pip, str(REPOSITORY)], check=True)
    (wheel,) = tmp_path.glob("aquiline-*.whl")
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    assert (installed / "aquiline" / "py.typed").is_file()
    (entry_points,) = installed.glob("aquiline-*.dist-info/entry_points.txt")
    assert "aquiline = services.cli.main:main" in entry_points.read_text()
    asked = "import aquiline; print(aquiline.__file__, len(aquiline.sample()))"
    command = [sys.executable, "-c", asked]
    ran = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(installed)}, check=True, capture_output=True, text=True
    )
    assert ran.stdout.split() == [str(installed / "aquiline" / "__init__.py"), "12154"]
