"""Decisions over time: ten seconds a point, each with its outcomes, latency percentiles, prefix hits and acceptance."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import Final

from schemas import AuditRecord, Outcome
from services.console.models import TimelinePoint
from services.core.percentile import percentile

STEP_MS: Final = 10_000
_MAX_POINTS: Final = 720
"""Two hours."""
_MAX_SAMPLES: Final = 2_000
"""Latencies of a point; beyond it every n-th is kept, so that a point of any load takes 16 KB at most."""


@dataclass(slots=True)
class _Point:
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    latencies_ms: list[float] = field(default_factory=list)
    every: int = 1
    seen: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    accepted: float = 0.0
    answers: int = 0

    def add_latency(self, latency_ms: float) -> None:
        if self.seen % self.every == 0:
            self.latencies_ms.append(latency_ms)
        self.seen += 1
        if len(self.latencies_ms) > _MAX_SAMPLES:
            self.latencies_ms = self.latencies_ms[::2]
            self.every *= 2


class Timeline:
    """The last two hours of decisions."""

    def __init__(self) -> None:
        """Start empty."""
        self._points: OrderedDict[int, _Point] = OrderedDict()

    def add(self, at_ms: int, audit: AuditRecord, total_ms: float | None) -> None:
        """Add a decision whose audit record was appended at `at_ms`."""
        step = at_ms // STEP_MS
        point = self._points.get(step)
        if point is None:
            point = self._points[step] = _Point()
            while len(self._points) > _MAX_POINTS:
                del self._points[min(self._points)]
        point.outcomes[audit.outcome] += 1
        if total_ms is not None:
            point.add_latency(total_ms)
        if audit.prompt_tokens and audit.cached_tokens is not None:
            point.prompt_tokens += audit.prompt_tokens
            point.cached_tokens += audit.cached_tokens
        if audit.accept_length is not None:
            point.accepted += audit.accept_length
            point.answers += 1

    def points(self, last: int = _MAX_POINTS) -> list[TimelinePoint]:
        """Return the last points that have decisions, in order of time."""
        return [_view(step, self._points[step]) for step in sorted(self._points)[-last:]]


def _view(step: int, point: _Point) -> TimelinePoint:
    p50_ms, p95_ms, p99_ms = (percentile(point.latencies_ms, share) if point.latencies_ms else None for share in (0.50, 0.95, 0.99))
    return TimelinePoint(
        at_ms=step * STEP_MS,
        outcomes=dict(point.outcomes),
        p50_ms=p50_ms,
        p95_ms=p95_ms,
        p99_ms=p99_ms,
        hit_ratio=point.cached_tokens / point.prompt_tokens if point.prompt_tokens else None,
        accept_length=point.accepted / point.answers if point.answers else None,
    )
