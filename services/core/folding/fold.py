"""What becomes of a bar that is held against those before it, and why a record is put aside for it."""

from __future__ import annotations

from enum import Enum
from typing import Final

from schemas import DeadLetterReason


class Fold(Enum):
    """What became of a bar."""

    FOLDED = "folded"
    REVISED = "revised"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    LATE = "late"


REFUSALS: Final = {Fold.CONFLICT: DeadLetterReason.CONFLICT, Fold.LATE: DeadLetterReason.LATE}
"""The folds for which a record is put aside."""
