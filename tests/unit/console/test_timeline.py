"""Decisions over time."""

from __future__ import annotations

from schemas import Outcome
from services.console.timeline import STEP_MS, Timeline
from tests.unit.console.records import audit


def test_points_hold_ten_seconds_each_in_order_of_time() -> None:
    timeline = Timeline()
    for number, at_ms in enumerate((25_000, 3_000, 9_999, 10_000)):
        timeline.add(at_ms, audit(number, Outcome.PUBLISHED if number else Outcome.STALE), 100.0 * number if number else None)
    points = timeline.points()
    assert [one.at_ms for one in points] == [0, STEP_MS, 2 * STEP_MS]
    assert points[0].outcomes == {Outcome.PUBLISHED: 2}
    assert (points[0].p50_ms, points[0].p99_ms) == (100.0, 200.0)
    assert points[0].hit_ratio == 0.9
    assert points[2].p50_ms is None


def test_a_point_of_any_load_keeps_few_samples_and_its_percentiles() -> None:
    timeline, one = Timeline(), audit(1)
    for number in range(20_000):
        timeline.add(0, one, float(number % 1_000))
    (point,) = timeline.points()
    assert point.outcomes == {Outcome.PUBLISHED: 20_000}
    assert point.p50_ms is not None
    assert abs(point.p50_ms - 500) < 50


def test_two_hours_are_kept() -> None:
    timeline, one = Timeline(), audit(1)
    for number in range(1_000):
        timeline.add(number * STEP_MS, one, 1.0)
    assert [one.at_ms for one in timeline.points()] == [number * STEP_MS for number in range(280, 1_000)]
