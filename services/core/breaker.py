"""A circuit breaker: after failures in a row it refuses calls to an address for a while, then admits a single trial call.

A pure core: time comes in as milliseconds, nothing is awaited. The pattern is Michael Nygard's ("Release It!", 2007).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

BreakerState = Literal["closed", "open", "half_open"]
CallResult = Literal["answered", "failed", "unknown"]
"""How an admitted call ended; `unknown` does not count, such as a call that its caller cancelled."""


@dataclass(frozen=True, slots=True)
class Admission:
    """The right to one call; `Breaker.settle` takes it back, exactly once."""

    serial: int
    """Counts how often the breaker opened: a call admitted before does not count afterwards."""
    probe: bool


class Breaker:
    """Closed: calls pass. Open: none does, for `open_ms`. Half open: one call, the probe, passes, and its end decides."""

    def __init__(self, failures: int, open_ms: int) -> None:
        """Open after `failures` failures in a row, for `open_ms` milliseconds; raise ValueError unless both are positive."""
        if failures < 1 or open_ms < 1:
            raise ValueError(f"a breaker needs failures >= 1 and open_ms >= 1, not {failures} and {open_ms}")
        self._limit = failures
        self._open_ms = open_ms
        self._failures = 0
        self._opened_at_ms: int | None = None
        self._serial = 0
        self._probing = False

    def state(self, now_ms: int) -> BreakerState:
        """Return the state at `now_ms`."""
        if self._opened_at_ms is None:
            return "closed"
        # A clock set back must not keep the breaker open for the length of the step.
        if 0 <= now_ms - self._opened_at_ms < self._open_ms:
            return "open"
        return "half_open"

    def would_admit(self, now_ms: int) -> bool:
        """Return whether `admit` would admit a call now."""
        state = self.state(now_ms)
        return state == "closed" or (state == "half_open" and not self._probing)

    def admit(self, now_ms: int) -> Admission | None:
        """Return the right to a call, None while the breaker refuses calls."""
        if not self.would_admit(now_ms):
            return None
        self._probing = self._opened_at_ms is not None
        return Admission(self._serial, self._probing)

    def settle(self, admission: Admission, result: CallResult, now_ms: int) -> None:
        """Record how an admitted call ended."""
        if admission.serial != self._serial:
            return
        if admission.probe:
            self._probing = False
        if result == "answered":
            self._failures = 0
            self._opened_at_ms = None
        elif result == "failed":
            self._failures += 1
            if admission.probe or self._failures >= self._limit:
                self._open(now_ms)

    def _open(self, now_ms: int) -> None:
        self._opened_at_ms = now_ms
        self._serial += 1
        self._failures = 0
        self._probing = False
