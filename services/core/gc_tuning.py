"""Tunes Python's garbage collector for a process that folds records, whose objects are freed by reference counts.

The collector only has to find cycles, and with its defaults runs too often over too many objects: folding 720,000 records of 200
symbols took 1,900 passes over the newest objects, and 15 over everything that the process had imported, of 0.1 to 0.3 s each.
"""

from __future__ import annotations

import gc
from typing import Final

_NEW_OBJECTS: Final = 10_000
"""Allocations less deallocations that start a pass over new objects; a batch of 500 records holds some 3,000."""


def freeze() -> None:
    """Exempt all existing objects from later passes, and run passes less often. Call it once a service is built."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, *gc.get_threshold()[1:])
