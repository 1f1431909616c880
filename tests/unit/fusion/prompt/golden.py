"""Whole prompts as files, special tokens by their names, so that a change of wording is seen in review.

`python -m tests.unit.fusion.prompt.golden` writes them anew.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from services.fusion.prompt.chat import TEMPLATES
from services.fusion.prompt.layout import visible
from services.fusion.prompt.version import specimen

FOLDER: Final = Path(__file__).parent / "golden"

CASES: Final[dict[str, Callable[[], str]]] = {
    "specimen": lambda: visible(specimen(TEMPLATES["minicpm4"])),
}


def path_of(case: str) -> Path:
    """Return the file of a case."""
    return FOLDER / f"{case}.txt"


if __name__ == "__main__":
    for name, render in CASES.items():
        path_of(name).write_text(render(), encoding="utf-8")
