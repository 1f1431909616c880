"""What a check returns: what it looked at, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Found:
    """`looked_at` is a few words that say how much was checked; each of `problems` a sentence with the place, the value and the mend."""

    looked_at: str
    problems: Sequence[str] = ()
