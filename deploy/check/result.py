"""The result of one check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """`subject` names what was checked and how much of it; each of `problems` is a sentence with the place, the value and the fix."""

    subject: str
    problems: Sequence[str] = ()
