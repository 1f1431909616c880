"""Writes files that are generated from the source, or compares them with those on disk: the main program of each generator."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]


def drift(files: Mapping[Path, str], root: Path = ROOT) -> str:
    """Return a unified diff from the files below `root` to `files`, text by relative path."""
    return "".join(
        line
        for path, text in files.items()
        for line in difflib.unified_diff(
            (root / path).read_text(encoding="utf-8").splitlines(keepends=True) if (root / path).is_file() else [],
            text.splitlines(keepends=True),
            str(path),
            f"{path} (generated)",
        )
    )


def write_or_check(files: Mapping[Path, str], argv: list[str] | None, *, module: str, about: str | None) -> int:
    """Write `files`, or with `--check` compare them; return the exit status of the command `python -m MODULE`."""
    command = f"python -m {module}"
    parser = argparse.ArgumentParser(prog=command, description=about)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 with a diff when a file is out of date")
    if parser.parse_args(argv).check:
        if difference := drift(files):
            sys.stderr.write(f"{difference}\ngenerated files are out of date; run: {command}\n")
        return 1 if difference else 0
    for path, text in files.items():
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(text, encoding="utf-8")
    return 0
