"""Write the distribution's metadata into a folder of PYTHONPATH: on the GPU host the tree runs as it is, without being installed.

The worker's version and the entry points of the engines are looked up there.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path


def main() -> None:
    """Write `aquiline-VERSION.dist-info` into the folder that the first argument names."""
    if len(sys.argv) != 2:
        raise SystemExit("usage: metadata.py FOLDER")
    project = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())["project"]
    folder = Path(sys.argv[1]) / f"{project['name']}-{project['version']}.dist-info"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = {"console_scripts": project.get("scripts", {}), **project.get("entry-points", {})}
    lines = [f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in named.items()) for group, named in groups.items()]
    (folder / "entry_points.txt").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
