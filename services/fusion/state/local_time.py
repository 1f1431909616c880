"""Times of the log as the exchange's clocks and calendars show them."""

from __future__ import annotations

from datetime import date, datetime
from functools import cache
from zoneinfo import ZoneInfo


def local(ts_ms: int, zone: str) -> datetime:
    """Return a time in the exchange's zone."""
    return datetime.fromtimestamp(ts_ms / 1000, _zone(zone))


def day_number(day: date, zone: str, day_zero_ms: int | None) -> int | None:
    """Return the days from day zero to `day` in the exchange's zone, None where prompts show dates."""
    return None if day_zero_ms is None else (day - local(day_zero_ms, zone).date()).days


@cache
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)
