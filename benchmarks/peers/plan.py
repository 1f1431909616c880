"""What all workers of the comparison are offered: the phases, their length and load, and what counts as in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

EPOCH_SLOTS: Final = 64
CALLS: Final = 8
"""Calls to the engine at once, for every worker."""
TIMES: Final = 10
VALIDITY_MS: Final = 3_000
"""How long a signal on a bar of 1m may be acted on unless told otherwise."""
COLD, WARM, WARM_RUSH, COLD_RUSH, KILL, BACKLOG = PHASES = ("1x cold", "1x warm", "10x warm", "10x cold", "kill -9", "backlog")


@dataclass(frozen=True, slots=True)
class Plan:
    """How long each phase is, and how much is offered."""

    symbols: int
    window_bars: int
    per_s: float
    """Bars a second at 1x."""
    many_s: float
    """Seconds at 10x."""
    backlog: int
    """Forming bars that are read at once."""

    @property
    def round(self) -> list[int]:
        """Return every symbol once."""
        return list(range(self.symbols))

    @property
    def rush(self) -> list[int]:
        """Return the symbols by turns, for the time at 10x."""
        return [at % self.symbols for at in range(int(TIMES * self.per_s * self.many_s))]
