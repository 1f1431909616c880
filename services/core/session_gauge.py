"""The gauge of open markets: alerts that page at night fire only while one is open."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from schemas import RunMode
from services.core import metrics
from services.core.calendar import CalendarError, SessionCalendar

_RECORDED: Final = frozenset({RunMode.DEMO, RunMode.REPLAY})


def set_session_gauge(calendars: Iterable[str], run_mode: RunMode, now_ms: int) -> None:
    """Set for each of `calendars` whether its market is open at `now_ms`, and remove calendars that are no longer in use.

    Recorded data is played at any hour, so that in `demo` and `replay` every market counts as open.
    """
    metrics.SESSION_OPEN.clear()
    for name in calendars:
        metrics.SESSION_OPEN.labels(name).set(run_mode in _RECORDED or _is_open(name, now_ms))


def _is_open(name: str, now_ms: int) -> bool:
    """Return whether the market is open; True when the calendar does not say, since silence would hide a fault."""
    try:
        calendar = SessionCalendar.of(name)
        calendar.check_covers(now_ms)
    except CalendarError:
        return True
    return calendar.is_open(now_ms)
