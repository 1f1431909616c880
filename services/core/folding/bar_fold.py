"""The result of folding a bar into those before it, and which results dead-letter the record."""

from __future__ import annotations

from enum import Enum
from typing import Final

from schemas import DeadLetterReason


class Fold(Enum):
    """The result of folding a bar."""

    FOLDED = "folded"
    REVISED = "revised"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    LATE = "late"


# For the hot path: in Python 3.11 naming an enum's member takes 0.2 us, naming a module's own 0.02.
FOLDED: Final = Fold.FOLDED
REVISED: Final = Fold.REVISED
DUPLICATE: Final = Fold.DUPLICATE

REFUSALS: Final = {Fold.CONFLICT: DeadLetterReason.CONFLICT, Fold.LATE: DeadLetterReason.LATE}
"""The results for which a record is dead-lettered."""
