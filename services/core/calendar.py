"""Trading calendars as pure functions over sorted arrays: when sessions open and close, and when bars are due.

`24x7` is arithmetic alone; every other name is an exchange calendar, turned once into arrays of milliseconds. Lunch breaks are
ignored: a session runs from its first open to its last close.
"""

from __future__ import annotations

import datetime as dt
import functools
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from schemas import interval_ms

ALWAYS_OPEN: Final = "24x7"
_DAY_MS: Final = 86_400_000
_FIRST_YEAR: Final = "1990-01-01"
# 1970-01-01 was a Thursday: ISO weeks, which begin on Mondays, are counted from 1970-01-05.
_MONDAY: Final = 4

Int64 = npt.NDArray[np.int64]


class CalendarError(ValueError):
    """A calendar is not known, or does not reach as far as was asked; the text says what to do."""


@dataclass(frozen=True, slots=True)
class _Slots:
    """The scheduled bars of one interval, numbered from 0: session i holds the bars `first[i]` to `first[i + 1] - 1`."""

    length_ms: int
    first: Int64


class SessionCalendar:
    """The sessions of one calendar. All times are milliseconds since 1970; a session holds its open and not its close."""

    def __init__(self, name: str, days: Int64, opens: Int64, closes: Int64) -> None:
        """Take sessions in order: `days` (days since 1970 of their labels), `opens` and `closes` (ms), int64 of equal length.

        `SessionCalendar.of` is how services get one. Empty arrays mean a market that is always open.
        """
        self.name = name
        self._days = days
        self._opens = opens
        self._closes = closes
        self._slots: dict[str, _Slots] = {}
        self._groups: dict[str, tuple[Int64, Int64]] = {}

    @staticmethod
    @functools.lru_cache(maxsize=64)
    def of(name: str) -> SessionCalendar:
        """Return the calendar called `name`, sessions from 1990 (or the calendar's own start) to about a year from now.

        Raises CalendarError when there is none of that name.
        """
        empty = np.empty(0, dtype=np.int64)
        if name == ALWAYS_OPEN:
            return SessionCalendar(name, empty, empty, empty)
        return _exchange(name)

    @property
    def always_open(self) -> bool:
        """Return whether there are no sessions to speak of."""
        return self.name == ALWAYS_OPEN

    def is_open(self, ts_ms: int) -> bool:
        """Return whether `ts_ms` lies in a session."""
        return self.always_open or self._session_at(ts_ms) is not None

    def session_close_ms(self, ts_ms: int) -> int | None:
        """Return the close of the session that holds `ts_ms`; None between sessions, and always for `24x7`."""
        if self.always_open:
            return None
        session = self._session_at(ts_ms)
        return None if session is None else int(self._closes[session])

    def next_open_ms(self, ts_ms: int) -> int:
        """Return the first open at or after `ts_ms`, which for `24x7` is `ts_ms` itself; raise CalendarError past its end."""
        if self.always_open:
            return ts_ms
        session = int(self._opens.searchsorted(ts_ms, "left"))
        if session == len(self._opens):
            raise self._too_far(ts_ms)
        return int(self._opens[session])

    def session_on(self, day: dt.date) -> tuple[int, int] | None:
        """Return open and close of the session labelled `day`, None when there is none; a UTC day for `24x7`."""
        number = (day - dt.date(1970, 1, 1)).days
        if self.always_open:
            return number * _DAY_MS, (number + 1) * _DAY_MS
        session = int(self._days.searchsorted(number, "left"))
        if session == len(self._days) or int(self._days[session]) != number:
            return None
        return int(self._opens[session]), int(self._closes[session])

    def bar_bounds(self, interval: str, ts_ms: int) -> tuple[int, int] | None:
        """Return open and close of the scheduled bar of `interval` that holds `ts_ms`, None between sessions.

        Intraday bars are aligned to UTC multiples of the interval and clipped to the session; `1d` is the session; `1w` goes
        from the first open to the last close of an ISO week.
        """
        length, offset, by_day = _grid(interval)
        if self.always_open:
            start = (ts_ms - offset) // length * length + offset
            return start, start + length
        if by_day:
            opens, closes = self._grouped(interval)
            group = int(closes.searchsorted(ts_ms, "right"))
            if self._session_at(ts_ms) is None or group == len(closes):
                return None
            return int(opens[group]), int(closes[group])
        session = self._session_at(ts_ms)
        if session is None:
            return None
        start = ts_ms // length * length
        return max(start, int(self._opens[session])), min(start + length, int(self._closes[session]))

    def slots_between(self, interval: str, after_ms: int, until_ms: int) -> int:
        """Return how many scheduled bars of `interval` have `after_ms < ts_close_ms <= until_ms`."""
        return max(0, self._closed_by(interval, until_ms) - self._closed_by(interval, after_ms))

    def next_closes(self, interval: str, after_ms: int, count: int) -> list[int]:
        """Return `ts_close_ms` of the next `count` scheduled bars of `interval` that close after `after_ms`.

        Raises CalendarError when the calendar ends before.
        """
        first = self._closed_by(interval, after_ms)
        return [self._close_of(interval, number) for number in range(first, first + count)]

    def _session_at(self, ts_ms: int) -> int | None:
        session = int(self._opens.searchsorted(ts_ms, "right")) - 1
        return session if session >= 0 and ts_ms < int(self._closes[session]) else None

    def _closed_by(self, interval: str, ts_ms: int) -> int:
        """Return how many bars of the whole calendar close at `ts_ms` or before."""
        length, offset, by_day = _grid(interval)
        if self.always_open:
            return (ts_ms - offset) // length
        if by_day:
            return int(self._grouped(interval)[1].searchsorted(ts_ms, "right"))
        session = int(self._opens.searchsorted(ts_ms, "right")) - 1
        if session < 0:
            return 0
        first = self._slotted(interval).first
        if ts_ms >= int(self._closes[session]):
            return int(first[session + 1])
        return int(first[session]) + ts_ms // length - int(self._opens[session]) // length

    def _close_of(self, interval: str, number: int) -> int:
        length, offset, by_day = _grid(interval)
        if self.always_open:
            return (number + 1) * length + offset
        if by_day:
            closes = self._grouped(interval)[1]
            if number >= len(closes):
                raise self._too_far(None)
            return int(closes[number])
        first = self._slotted(interval).first
        if number >= int(first[-1]):
            raise self._too_far(None)
        session = int(first.searchsorted(number, "right")) - 1
        aligned = (int(self._opens[session]) // length + number - int(first[session]) + 1) * length
        return min(aligned, int(self._closes[session]))

    def _slotted(self, interval: str) -> _Slots:
        found = self._slots.get(interval)
        if found is None:
            length = interval_ms(interval)
            counts = -(-self._closes // length) - self._opens // length
            first = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(counts, dtype=np.int64)))
            found = self._slots[interval] = _Slots(length, first)
        return found

    def _grouped(self, interval: str) -> tuple[Int64, Int64]:
        """Return opens and closes of the bars of a whole number of days or weeks, grouped by the sessions' labels."""
        found = self._groups.get(interval)
        if found is None:
            length, offset, _ = _grid(interval)
            bucket = (self._days - offset // _DAY_MS) // (length // _DAY_MS)
            starts = np.flatnonzero(np.diff(bucket, prepend=bucket[0] - 1))
            ends = np.append(starts[1:], len(bucket)) - 1
            found = self._groups[interval] = self._opens[starts], self._closes[ends]
        return found

    def _too_far(self, ts_ms: int | None) -> CalendarError:
        end = dt.datetime.fromtimestamp(int(self._closes[-1]) / 1000, tz=dt.UTC)
        asked = "" if ts_ms is None else f", and {ts_ms} ms was asked for"
        return CalendarError(
            f"calendar {self.name} is known until {end:%Y-%m-%dT%H:%MZ}{asked}; "
            "restart the service, or upgrade exchange-calendars, to have it reach further"
        )


def _grid(interval: str) -> tuple[int, int, bool]:
    """Return length and offset of the UTC grid of `interval` in ms, and whether it is made of whole sessions."""
    length = interval_ms(interval)
    by_day = interval[-1] in "dw" or length % _DAY_MS == 0
    return length, _MONDAY * _DAY_MS if interval[-1] == "w" else 0, by_day


def _exchange(name: str) -> SessionCalendar:
    # Imported here: it pulls in pandas, a second that a process with only 24x7 instruments need not spend.
    import exchange_calendars as xc  # noqa: PLC0415
    from exchange_calendars.errors import InvalidCalendarName  # noqa: PLC0415

    try:
        try:
            calendar = xc.get_calendar(name, start=_FIRST_YEAR)
        except ValueError:
            # Some calendars begin later (XTKS in 1997) and refuse an earlier start.
            calendar = xc.get_calendar(name, start=type(xc.get_calendar(name)).bound_min())
    except InvalidCalendarName as error:
        raise CalendarError(
            f"calendar {name!r} is neither {ALWAYS_OPEN!r} nor an exchange calendar; "
            "use the exchange's ISO 10383 code, such as 'XNYS' (exchange_calendars.get_calendar_names() lists them all)"
        ) from error
    days = calendar.sessions.to_numpy(dtype="datetime64[D]").astype(np.int64)
    opens = calendar.opens.to_numpy(dtype="datetime64[ms]").astype(np.int64)
    closes = calendar.closes.to_numpy(dtype="datetime64[ms]").astype(np.int64)
    return SessionCalendar(name, days, opens, closes)
