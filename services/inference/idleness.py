"""When an idle address is due for a probe, and the probe: a request for a few tokens that no decision needs.

A pure core: time comes in as milliseconds, nothing is awaited.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import uuid4

import numpy as np

from services.inference.engine import EngineRequest, Sampling

_IDS: Final = np.arange(16, 24, dtype=np.int32)
"""Any ids do: every vocabulary has these, and eight of them cost less than a kernel's launch."""

_TEXT: Final = ("Answer with one word.", "Do you answer?")
_TOKENS: Final = 4
"""One token comes with the prefill; more than one take the decoding that EAGLE verifies, which can hang by itself."""


def probe(deadline_ms: int) -> EngineRequest:
    """Return a request for a few tokens."""
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
    """The calls of one address, and when it last sent something."""

    idle_ms: int
    """Without a call for this long, a probe is due."""
    answered_ms: int
    """When the address last sent something; the start of watching before that."""
    used_ms: int
    """When a call last began or ended."""
    calls: int = 0
    """Calls in flight."""

    def begin(self, now_ms: int) -> None:
        """Record the start of a call."""
        self.calls += 1
        self.used_ms = now_ms

    def end(self, now_ms: int) -> None:
        """Record the end of a call."""
        self.calls -= 1
        self.used_ms = now_ms

    def answer(self, now_ms: int) -> None:
        """Record that the address sent something."""
        self.answered_ms = now_ms

    def due_in_ms(self, now_ms: int) -> int:
        """Return the milliseconds until a probe is due at the earliest, 0 when it is due now."""
        if self.calls:
            return self.idle_ms
        # A clock that was set back must not put it off for the length of the step.
        return 0 if now_ms < self.used_ms else max(0, self.used_ms + self.idle_ms - now_ms)

    def silent_ms(self, now_ms: int) -> int:
        """Return for how long the address has sent nothing."""
        return max(0, now_ms - self.answered_ms)
