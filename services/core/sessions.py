"""Which markets are open now, as a metric: what a page at night depends on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from schemas import RunMode
from services.core import metrics
from services.core.calendar import CalendarError, SessionCalendar

_RECORDED: Final = frozenset({RunMode.DEMO, RunMode.REPLAY})


def show_sessions(calendars: Iterable[str], run_mode: RunMode, now_ms: int) -> None:
    """Show for each of `calendars` whether a session is open at `now_ms`; those that nobody uses any more go."""
    metrics.SESSION_OPEN.clear()
    for name in calendars:
        metrics.SESSION_OPEN.labels(name).set(run_mode in _RECORDED or _open(name, now_ms))


def _open(name: str, now_ms: int) -> bool:
    """Return whether a session is open; True where that is not known, as silence would hide a fault."""
    try:
        calendar = SessionCalendar.of(name)
        calendar.next_open_ms(now_ms)
    except CalendarError:
        return True
    return calendar.is_open(now_ms)
