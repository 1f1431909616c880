"""When an address has been idle long enough to be asked for a few tokens of nobody's, and what it is then asked.

A pure core: time comes in as milliseconds, nothing is awaited.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import uuid4

import numpy as np

from services.inference.engine import EngineRequest, Sampling

_IDS: Final = np.arange(16, 24, dtype=np.int32)
"""Any ids will do: every vocabulary has these, and eight of them cost a GPU less than its launch does."""

_TEXT: Final = ("Answer with one word.", "Do you answer?")
_TOKENS: Final = 4
"""One token comes with the prefill; more than one take the decoding that EAGLE verifies, which can hang by itself."""


def probe(deadline_ms: int) -> EngineRequest:
    """Return a request for a few tokens of nobody's."""
    return EngineRequest(
        rid=uuid4().hex,
        affinity="",
        mode="fast",
        input_ids=_IDS,
        sampling=Sampling(_TOKENS, ignore_eos=True),
        deadline_ms=deadline_ms,
        text=lambda: _TEXT,
        view={},
    )


@dataclass(slots=True)
class Idleness:
    """Who uses an address, and since when it has been silent."""

    idle_ms: int
    """How long nobody may have asked before it is due to be asked."""
    heard_ms: int
    """When the address last gave something; at first, since when it is watched."""
    used_ms: int
    """When a call last began or ended."""
    calls: int = 0
    """Calls under way."""

    def begin(self, now_ms: int) -> None:
        """Note that a call begins."""
        self.calls += 1
        self.used_ms = now_ms

    def end(self, now_ms: int) -> None:
        """Note that a call has ended."""
        self.calls -= 1
        self.used_ms = now_ms

    def hear(self, now_ms: int) -> None:
        """Note that the address gave something."""
        self.heard_ms = now_ms

    def due_in_ms(self, now_ms: int) -> int:
        """Return in how many milliseconds it is due at the earliest, 0 when it is due now."""
        if self.calls:
            return self.idle_ms
        # A clock that was set back must not put it off for the length of the step.
        return 0 if now_ms < self.used_ms else max(0, self.used_ms + self.idle_ms - now_ms)

    def silent_ms(self, now_ms: int) -> int:
        """Return how long it has been silent."""
        return max(0, now_ms - self.heard_ms)
