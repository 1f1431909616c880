"""When prefixes do not fit into the engine, the worker names a window that would."""

from __future__ import annotations

from structlog.testing import capture_logs

from services.fusion.prompt.capacity import CapacityWatch, fitting_window


def test_the_window_named_makes_the_prefixes_fit() -> None:
    window = fitting_window(1_000, needed_tokens=400_000, capacity_tokens=100_000)
    assert window == 250
    assert 400_000 * window // 1_000 <= 100_000


def test_it_is_said_once_when_prefixes_stop_fitting_and_once_when_they_fit_again() -> None:
    watch = CapacityWatch(256, prewarm=True)
    with capture_logs() as logs:
        for live in (10, 60, 70, 40):
            watch.check(live, 100)
    assert [(line["event"], line["needed_tokens"]) for line in logs] == [
        ("prefixes_exceed_kv_capacity", 120),
        ("prefixes_fit_kv_capacity", 80),
    ]


def test_without_word_from_the_engine_nothing_is_said() -> None:
    with capture_logs() as logs:
        CapacityWatch(256, prewarm=False).check(10**9, None)
    assert logs == []
