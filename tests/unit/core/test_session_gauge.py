"""Which markets are open, as a metric that pages depend on."""

from __future__ import annotations

import datetime as dt

import pytest

from schemas import RunMode
from services.core.metrics import REGISTRY
from services.core.session_gauge import set_session_gauge

MONDAY_NOON_MS = int(dt.datetime(2024, 7, 1, 16, tzinfo=dt.UTC).timestamp() * 1000)
SUNDAY_MS = MONDAY_NOON_MS - 86_400_000
NEXT_CENTURY_MS = int(dt.datetime(2101, 1, 2, tzinfo=dt.UTC).timestamp() * 1000)


def shown() -> dict[str, float]:
    """Return what the metric says, by calendar."""
    families = [family for family in REGISTRY.collect() if family.name == "aquiline_session_open"]
    return {sample.labels["calendar"]: sample.value for family in families for sample in family.samples}


@pytest.mark.parametrize(
    ("now_ms", "expected"),
    [
        (MONDAY_NOON_MS, {"XNYS": 1, "24x7": 1}),
        (SUNDAY_MS, {"XNYS": 0, "24x7": 1}),
    ],
)
def test_a_calendar_is_open_in_its_sessions(now_ms: int, expected: dict[str, float]) -> None:
    set_session_gauge(["XNYS", "24x7"], RunMode.LIVE, now_ms)
    assert expected == shown()


def test_what_is_not_known_counts_as_open() -> None:
    set_session_gauge(["XNYS", "no such calendar"], RunMode.SHADOW, NEXT_CENTURY_MS)
    assert shown() == {"XNYS": 1, "no such calendar": 1}


@pytest.mark.parametrize("run_mode", [RunMode.DEMO, RunMode.REPLAY])
def test_recorded_data_has_its_own_time(run_mode: RunMode) -> None:
    set_session_gauge(["XNYS"], run_mode, SUNDAY_MS)
    assert shown() == {"XNYS": 1}


def test_a_calendar_that_nobody_uses_any_more_goes() -> None:
    set_session_gauge(["XNYS"], RunMode.LIVE, SUNDAY_MS)
    set_session_gauge([], RunMode.LIVE, SUNDAY_MS)
    assert shown() == {}
