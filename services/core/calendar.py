"""Trading calendars as pure functions over sorted arrays: when sessions open, break and close, and when bars are scheduled.

`24x7` is arithmetic on UTC; `FX` is the currency market's week; every other name is an exchange calendar.
"""

from __future__ import annotations

import datetime as dt
import functools
from typing import Final

import numpy as np

from schemas import interval_ms
from services.core.calendar_data import ALWAYS_OPEN, FX, CalendarError, Int64, Sessions, load_sessions

__all__ = ["ALWAYS_OPEN", "FX", "CalendarError", "SessionCalendar"]

_DAY_MS: Final = 86_400_000
_52_WEEKS_MS: Final = 364 * _DAY_MS
# 1970-01-01 was a Thursday: ISO weeks, which begin on Mondays, are counted from 1970-01-05.
_MONDAY: Final = 4


class SessionCalendar:
    """The sessions of one calendar. All times are milliseconds since 1970; a session holds its open and not its close.

    A session trades from its open to its close, except during its break (lunch in Tokyo). Intraday bars are counted from the open of
    the session and again from the end of its break, so that they are the same all year and the last bar before a break or a close is the
    only one that may be short. Those of `24x7` are counted in UTC.
    """

    def __init__(self, name: str, sessions: Sessions) -> None:
        """Take sessions in order that do not overlap; none mean a market that is always open. Services use `SessionCalendar.of`."""
        self.name = name
        self.zone = sessions.zone
        """The exchange's time zone by its IANA name."""
        self._days = sessions.days
        self._opens = sessions.opens
        self._closes = sessions.closes
        broken = sessions.break_starts < sessions.break_ends
        # What trades without interruption: a session, or each of the two parts that its break makes of it.
        self._span_opens = np.sort(np.concatenate((sessions.opens, sessions.break_ends[broken])))
        self._span_closes = np.sort(np.concatenate((sessions.closes, sessions.break_starts[broken])))
        self._first_slots: dict[str, Int64] = {}
        self._groups: dict[str, tuple[Int64, Int64]] = {}

    @staticmethod
    @functools.lru_cache(maxsize=64)
    def of(name: str) -> SessionCalendar:
        """Return the calendar called `name`, sessions from 1970 (or the calendar's own start) to about a year from now.

        Raises CalendarError when no calendar has that name.
        """
        return SessionCalendar(name, load_sessions(name))

    @property
    def always_open(self) -> bool:
        """Return whether the market never closes, so that there are no sessions."""
        return self.name == ALWAYS_OPEN

    def check_covers(self, ts_ms: int) -> None:
        """Raise CalendarError when `ts_ms` lies before the calendar's first session or after its last: nothing is known of that time."""
        if not self.always_open and not int(self._opens[0]) <= ts_ms < int(self._closes[-1]):
            raise self._outside(dt.datetime.fromtimestamp(ts_ms / 1000, tz=dt.UTC).strftime("%Y-%m-%dT%H:%MZ"))

    def is_open(self, ts_ms: int) -> bool:
        """Return whether the market trades at `ts_ms`: in a session and not in its break."""
        return self.always_open or self._span_at(ts_ms) is not None

    def session_close_ms(self, ts_ms: int) -> int | None:
        """Return the close of the session that holds `ts_ms`; None between sessions, and always for `24x7`."""
        session = None if self.always_open else self._session_at(ts_ms)
        return None if session is None else int(self._closes[session])

    def next_open_ms(self, ts_ms: int) -> int:
        """Return when trading next starts, at `ts_ms` or later: a session's open or the end of a break. For `24x7`, `ts_ms` itself.

        Raises CalendarError past the calendar's end.
        """
        if self.always_open:
            return ts_ms
        span = int(self._span_opens.searchsorted(ts_ms, "left"))
        if span == len(self._span_opens):
            raise self._outside(f"the open after {ts_ms} ms")
        return int(self._span_opens[span])

    def session_on(self, day: dt.date) -> tuple[int, int] | None:
        """Return open and close of the session dated `day`, None when there is none; a UTC day for `24x7`.

        Raises CalendarError when `day` lies before the calendar's first session or after its last.
        """
        number = (day - dt.date(1970, 1, 1)).days
        if self.always_open:
            return number * _DAY_MS, (number + 1) * _DAY_MS
        if not int(self._days[0]) <= number <= int(self._days[-1]):
            raise self._outside(day.isoformat())
        session = int(self._days.searchsorted(number, "left"))
        if int(self._days[session]) != number:
            return None
        return int(self._opens[session]), int(self._closes[session])

    def bar_bounds(self, interval: str, ts_ms: int) -> tuple[int, int] | None:
        """Return open and close of the scheduled bar of `interval` that holds `ts_ms`, None when there is none.

        An intraday bar lies within a session, or within one part of a session that has a break. `1d` is the session, its break
        included; `1w` goes from the first open to the last close of an ISO week. For `24x7` all bars are aligned to UTC.
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
        span = self._span_at(ts_ms)
        if span is None:
            return None
        span_open = int(self._span_opens[span])
        start = span_open + (ts_ms - span_open) // length * length
        return start, min(start + length, int(self._span_closes[span]))

    def slots_between(self, interval: str, after_ms: int, until_ms: int) -> int:
        """Return how many scheduled bars of `interval` have `after_ms < ts_close_ms <= until_ms`."""
        return max(0, self._closed_by(interval, until_ms) - self._closed_by(interval, after_ms))

    def next_closes(self, interval: str, after_ms: int, count: int) -> list[int]:
        """Return `ts_close_ms` of the next `count` scheduled bars of `interval` that close after `after_ms`.

        Raises CalendarError when the calendar ends before.
        """
        first = self._closed_by(interval, after_ms)
        return [self._close_of(interval, number) for number in range(first, first + count)]

    def nth_close(self, interval: str, after_ms: int, count: int) -> int:
        """Return `ts_close_ms` of the `count`-th bar of `interval` that closes after `after_ms`.

        Beyond the calendar's end, about a year ahead, the sessions of the 52 weeks before are taken to come again: a view of 99 weeks
        ends on a day that no exchange has announced.
        """
        shift_ms = 0
        if not self.always_open:
            first_ms, end_ms = int(self._opens[0]), int(self._closes[-1])
            while self.slots_between(interval, after_ms - shift_ms, end_ms) < count and after_ms - shift_ms > first_ms:
                shift_ms += _52_WEEKS_MS
        return self.next_closes(interval, after_ms - shift_ms, count)[-1] + shift_ms

    def _session_at(self, ts_ms: int) -> int | None:
        session = int(self._opens.searchsorted(ts_ms, "right")) - 1
        return session if session >= 0 and ts_ms < int(self._closes[session]) else None

    def _span_at(self, ts_ms: int) -> int | None:
        span = int(self._span_opens.searchsorted(ts_ms, "right")) - 1
        return span if span >= 0 and ts_ms < int(self._span_closes[span]) else None

    def _closed_by(self, interval: str, ts_ms: int) -> int:
        """Return how many bars of the whole calendar close at `ts_ms` or before."""
        length, offset, by_day = _grid(interval)
        if self.always_open:
            return (ts_ms - offset) // length
        if by_day:
            return int(self._grouped(interval)[1].searchsorted(ts_ms, "right"))
        span = int(self._span_opens.searchsorted(ts_ms, "right")) - 1
        if span < 0:
            return 0
        first = self._slots(interval)
        if ts_ms >= int(self._span_closes[span]):
            return int(first[span + 1])
        return int(first[span]) + (ts_ms - int(self._span_opens[span])) // length

    def _close_of(self, interval: str, number: int) -> int:
        length, offset, by_day = _grid(interval)
        if self.always_open:
            return (number + 1) * length + offset
        closes = self._grouped(interval)[1] if by_day else self._span_closes
        first = np.arange(len(closes) + 1) if by_day else self._slots(interval)
        if number >= int(first[-1]):
            raise self._outside(f"a later bar of {interval}")
        if by_day:
            return int(closes[number])
        span = int(first.searchsorted(number, "right")) - 1
        return min(int(self._span_opens[span]) + (number - int(first[span]) + 1) * length, int(closes[span]))

    def _slots(self, interval: str) -> Int64:
        """Return the number of each span's first scheduled bar of `interval`, counted from 0, and last how many there are in all."""
        known = self._first_slots.get(interval)
        if known is None:
            counts = -(-(self._span_closes - self._span_opens) // interval_ms(interval))
            known = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(counts, dtype=np.int64)))
            self._first_slots[interval] = known
        return known

    def _grouped(self, interval: str) -> tuple[Int64, Int64]:
        """Return opens and closes of the bars of a whole number of days or weeks, grouped by the sessions' dates."""
        known = self._groups.get(interval)
        if known is None:
            length, offset, _ = _grid(interval)
            bucket = (self._days - offset // _DAY_MS) // (length // _DAY_MS)
            starts = np.flatnonzero(np.diff(bucket, prepend=bucket[0] - 1))
            ends = np.append(starts[1:], len(bucket)) - 1
            known = self._groups[interval] = self._opens[starts], self._closes[ends]
        return known

    def _outside(self, asked: str) -> CalendarError:
        first, end = (dt.datetime.fromtimestamp(int(at_ms) / 1000, tz=dt.UTC) for at_ms in (self._opens[0], self._closes[-1]))
        return CalendarError(
            f"calendar {self.name} is known from {first:%Y-%m-%dT%H:%MZ} until {end:%Y-%m-%dT%H:%MZ}, and {asked} lies outside; "
            "leave older bars out, use calendar '24x7', or upgrade exchange-calendars to have it reach further"
        )


def _grid(interval: str) -> tuple[int, int, bool]:
    """Return length and offset of the UTC grid of `interval` in ms, and whether it is made of whole sessions."""
    length = interval_ms(interval)
    by_day = interval[-1] in "dw" or length % _DAY_MS == 0
    return length, _MONDAY * _DAY_MS if interval[-1] == "w" else 0, by_day
