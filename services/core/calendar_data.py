"""The sessions of each named calendar as arrays: exchanges from exchange_calendars, and the FX week from its rule.

Times are int64 milliseconds since 1970. What exchange_calendars leaves out, the daily maintenance halt of CME Globex, is added here.
"""

from __future__ import annotations

import datetime as dt
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]

FX: Final = "FX"
ALWAYS_OPEN: Final = "24x7"
# Times in messages begin in 1970, so no bar can be older.
_FIRST_DAY: Final = "1970-01-01"
_EPOCH: Final = dt.date(1970, 1, 1)
_HOUR_MS: Final = 3_600_000
# exchange_calendars has CME sessions of 24 hours. Globex halts for maintenance from 16:00 to 17:00 in Chicago, the last hour of each;
# without it every day lacked 60 bars of 1m, and 19 % of triggers were blocked as gaps.
_MAINTENANCE_MS: Final = {"CMES": _HOUR_MS}
_DAY_MS: Final = 86_400_000
_FX_ZONE: Final = "America/New_York"
_FX_HOUR: Final = 17
# The interbank market pauses for these two days; brokers and data vendors have no bars of them.
_FX_HOLIDAYS: Final = frozenset({(12, 25), (1, 1)})
_SATURDAY: Final = 5


class CalendarError(ValueError):
    """A calendar is not known or does not cover a time that was asked for; the text says what to do."""


class Sessions(NamedTuple):
    """Sessions in order: `days` (dates, in days since 1970), opens, closes and breaks (ms). A break that starts as it ends is none."""

    days: Int64
    opens: Int64
    closes: Int64
    break_starts: Int64
    break_ends: Int64
    zone: str
    """The exchange's time zone by its IANA name."""


def load_sessions(name: str) -> Sessions:
    """Return the sessions of the calendar `name`, from 1970 or the calendar's own start to about a year from now.

    `24x7` has none. Raises CalendarError when no calendar has that name.
    """
    if name == ALWAYS_OPEN:
        empty = np.empty(0, dtype=np.int64)
        return Sessions(empty, empty, empty, empty, empty, "UTC")
    return _fx() if name == FX else _exchange(name)


def _fx() -> Sessions:
    """Return sessions from 17:00 to 17:00 in New York, Monday's from Sunday 17:00 to Friday's until Friday 17:00."""
    first = _EPOCH + dt.timedelta(days=4)  # Monday 1970-01-05 opens on Sunday, after the epoch
    last = dt.datetime.now(dt.UTC).date() + dt.timedelta(days=366)
    dates = [first + dt.timedelta(days=number) for number in range((last - first).days)]
    traded = [day for day in dates if day.weekday() < _SATURDAY and (day.month, day.day) not in _FX_HOLIDAYS]
    opens = [_new_york_ms(day - dt.timedelta(days=1)) for day in traded]
    closes = [_new_york_ms(day) for day in traded]
    days = np.array([(day - _EPOCH).days for day in traded], dtype=np.int64)
    none = np.zeros(len(days), dtype=np.int64)
    return Sessions(days, np.array(opens, dtype=np.int64), np.array(closes, dtype=np.int64), none, none, _FX_ZONE)


def _new_york_ms(day: dt.date) -> int:
    return round(dt.datetime(day.year, day.month, day.day, _FX_HOUR, tzinfo=ZoneInfo(_FX_ZONE)).timestamp()) * 1000


def _exchange(name: str) -> Sessions:
    # Imported here: it pulls in pandas, a second that a process with only 24x7 instruments need not spend.
    import exchange_calendars as xc  # noqa: PLC0415
    from exchange_calendars.errors import InvalidCalendarName  # noqa: PLC0415

    try:
        try:
            calendar = xc.get_calendar(name, start=_FIRST_DAY)
        except ValueError:
            # Some calendars begin later (XTKS in 1997) and refuse an earlier start.
            calendar = xc.get_calendar(name, start=type(xc.get_calendar(name)).bound_min())
    except InvalidCalendarName as error:
        raise CalendarError(
            f"calendar {name!r} is none of {ALWAYS_OPEN!r}, {FX!r} and the exchange calendars; "
            "use the exchange's ISO 10383 code, such as 'XNYS' (exchange_calendars.get_calendar_names() lists them all)"
        ) from error
    days = calendar.sessions.to_numpy(dtype="datetime64[D]").astype(np.int64)
    opens, closes, starts, ends = (
        calendar.schedule[column].to_numpy(dtype="datetime64[ms]").astype(np.int64)
        for column in ("open", "close", "break_start", "break_end")
    )
    if (maintenance_ms := _MAINTENANCE_MS.get(xc.resolve_alias(name))) is not None:
        closes = np.where(closes - opens == _DAY_MS, closes - maintenance_ms, closes)
    # A missing break is the smallest int64; one that a half-day's close cuts off is none.
    broken = (opens < starts) & (starts < ends) & (ends < closes)
    return Sessions(days, opens, closes, np.where(broken, starts, opens), np.where(broken, ends, opens), str(calendar.tz))
