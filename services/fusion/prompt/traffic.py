"""What this worker has under way on the engine, so that work which can wait stays out of the way of decisions.

512 tokens that are prefilled beside a decision of 80 tokens made it 46 ms longer on an H200, whatever the priorities: they order what
waits, and a prefill halts what decodes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

_QUIET_TIMES: Final = 32
"""Quiet times between decisions that are remembered."""

_HELD_UP: Final = 0.5
"""How long work that can wait may hold the next decision up on the average, of its own time. Sent ahead, tokens save a decision about as
much: 1,000 tokens take 50 ms on an H100, of which 28 are a prefill's, whatever it computes, and the decision needs one all the same."""

_LONGEST_WAIT_S: Final = 60.0
"""How long work that can wait does so for room and for signals: then it begins once no decision holds a permit. A call that took long for
a reason that has gone would be the last otherwise, and a broker may be slow for hours."""


class EngineTraffic:
    """Counts decisions and rationales under way, and signals on their way to the broker."""

    def __init__(self) -> None:
        """Start with nothing under way."""
        self.decisions = 0
        """Decisions that hold a permit."""
        self.rationales = 0
        self._signals = 0
        self._lasted_ms: deque[float] = deque(maxlen=_QUIET_TIMES)
        self._quiet_since_s: float | None = None
        """None when it is not quiet, and until the first decision."""
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._busy = asyncio.Event()
        self._free = asyncio.Event()
        self._free.set()

    def decision_begins(self) -> None:
        """Count a decision that has been given a permit."""
        self.decisions += 1
        if self._quiet_since_s is not None:
            self._lasted_ms.append((_now_s() - self._quiet_since_s) * 1000)
        self._busy.set()
        self._free.clear()
        self._settle()

    def decision_ends(self) -> None:
        """Count out a decision that has given its permit back."""
        self.decisions -= 1
        if not self.decisions:
            self._busy.clear()
            self._free.set()
        self._settle()

    @contextmanager
    def rationale(self) -> Iterator[None]:
        """Count a rationale while the block runs."""
        self.rationales += 1
        try:
            yield
        finally:
            self.rationales -= 1

    @contextmanager
    def signal(self) -> Iterator[None]:
        """Count a signal that the broker has not acknowledged yet while the block runs: a prefix encoded meanwhile makes it late."""
        self._signals += 1
        self._settle()
        try:
            yield
        finally:
            self._signals -= 1
            self._settle()

    async def quiet(self, step_ms: float = 0.0) -> None:
        """Return once no decision holds a permit, no signal is on its way, and none is likely within `step_ms`: see `patience_ms`.

        After a minute the decisions that hold a permit are all that is waited for.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(_LONGEST_WAIT_S):
                await self._room(step_ms)
        while self.decisions:
            await self._free.wait()

    async def busy(self) -> None:
        """Return once a decision holds a permit."""
        await self._busy.wait()

    async def _room(self, step_ms: float) -> None:
        while True:
            await self._quiet.wait()
            if not self._quiet.is_set():
                continue
            quiet_ms = 0.0 if self._quiet_since_s is None else (_now_s() - self._quiet_since_s) * 1000
            wait_ms = patience_ms(self._lasted_ms, quiet_ms, step_ms)
            if not wait_ms:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_ms / 1000):
                    await self._busy.wait()

    def _settle(self) -> None:
        if self.decisions or self._signals:
            self._quiet.clear()
            self._quiet_since_s = None
        elif not self._quiet.is_set():
            self._quiet.set()
            self._quiet_since_s = _now_s()


def patience_ms(lasted_ms: Sequence[float], quiet_ms: float, step_ms: float) -> float:
    """Return how much longer to wait, `quiet_ms` into a quiet time, with work of `step_ms` that cannot be interrupted.

    It may begin when it would have held up the decisions that ended earlier quiet times, `lasted_ms`, by no more than half of `step_ms` on
    the average, of those that lasted as long as this one by then. A quiet time that is longer than all of them is one between two bursts.
    """
    for at_ms in (quiet_ms, *sorted(one_ms for one_ms in lasted_ms if one_ms > quiet_ms)):
        left_ms = [one_ms - at_ms for one_ms in lasted_ms if one_ms > at_ms]
        if sum(max(0.0, step_ms - one_ms) for one_ms in left_ms) <= _HELD_UP * step_ms * len(left_ms):
            return at_ms - quiet_ms
    raise AssertionError("nothing lasted longer than the longest quiet time")


def _now_s() -> float:
    return asyncio.get_running_loop().time()
