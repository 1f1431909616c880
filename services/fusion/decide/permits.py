"""Calls at once of one mode, and when the next may start: while triggers queue for permits, these are given out in groups.

An engine prefills prompts that arrive together in one step, and each prefill step halts what decodes. One call, three and eight together
took an H200 39, 79 and 115 ms to the first token, behind 32K cached ones. Pure: the caller passes the time.
"""

from __future__ import annotations

from typing import Final

_GROUP_WAIT_MS: Final = 200
"""How long a free permit waits for others, so that calls which hang do not hold up the rest."""


class Permits:
    """A permit is taken with each call and put back at its end."""

    def __init__(self, total: int) -> None:
        """Start with `total` free permits, at least 1."""
        self.free = total
        self._group = max(1, total // 2)
        self._short = False
        """Whether triggers were left in line when the last permit was taken."""
        self._free_since_ms: int | None = None
        """Since when free permits have been waiting for others, None when none waits."""

    def may_start(self, now_ms: int, *, queued: bool) -> bool:
        """Return whether triggers start now; `queued` says that some are in line."""
        if not queued:
            self.settled(queued=False)
        if not queued or not self.free:
            return False
        if not self._short or self.free >= self._group:
            return True
        if self._free_since_ms is None:
            self._free_since_ms = now_ms
        return now_ms >= self._free_since_ms + _GROUP_WAIT_MS

    def settled(self, *, queued: bool) -> None:
        """Note that nothing more starts for now; `queued` says that triggers are left in line."""
        self._free_since_ms = None
        self._short = queued and not self.free

    def wake_ms(self) -> int | None:
        """Return when free permits stop waiting for others, None when none waits."""
        return None if self._free_since_ms is None else self._free_since_ms + _GROUP_WAIT_MS
