"""Milliseconds by stage of one decision, as its audit record and the metrics name them."""

from __future__ import annotations

from services.core.clock import Clock


class Stopwatch:
    """Fills `stages_ms` while a decision goes from stage to stage."""

    def __init__(self, stages_ms: dict[str, float], clock: Clock) -> None:
        """Start the first stage."""
        self._stages_ms = stages_ms
        self._clock = clock
        self._last = self._first = clock.elapsed_s()

    def lap(self, stage: str) -> None:
        """End a stage: it took the time since the last one ended."""
        now = self._clock.elapsed_s()
        self._stages_ms[stage] = round((now - self._last) * 1000, 3)
        self._last = now

    def since_ms(self, stage: str) -> float:
        """Return the time since the first stage, `stage`, ended."""
        return (self._clock.elapsed_s() - self._first) * 1000 - self._stages_ms.get(stage, 0.0)
