"""A clock that is wrong by a constant, as a host's is whose time service has failed."""

from __future__ import annotations

from services.core.clock import Clock


class SkewedClock:
    """Shows `skew_ms` more than the clock that it follows."""

    def __init__(self, inner: Clock, skew_ms: int) -> None:
        self._inner = inner
        self._skew_ms = skew_ms

    def now_ms(self) -> int:
        return self._inner.now_ms() + self._skew_ms

    def elapsed_s(self) -> float:
        return self._inner.elapsed_s()

    async def sleep_until(self, at_ms: int) -> None:
        await self._inner.sleep_until(at_ms - self._skew_ms)
