"""Maps a timestamp to the open and close of its bar, by interval, calendar and time zone. Pure.

A bar keeps the open that its file states and never closes before it can have ended. Ambiguous timestamps are refused when one reading
would make the bar known too early.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple
from zoneinfo import ZoneInfo

from schemas import interval_ms
from services.core.calendar import SessionCalendar
from services.feeds.time_text import DAY_MS, ParsedTime

Stamp = Literal["open", "close"]
"""Which end of its bar a time is."""

_HOUR_MS: Final = 3_600_000
_LONG_SESSION_MS: Final = 12 * _HOUR_MS
"""A shorter session has one date in every time zone; a longer one may span two, so that a date is ambiguous."""
_WEEK_DAYS: Final = 7


class NoSessionError(ValueError):
    """The date of a daily bar has no session."""


class Span(NamedTuple):
    """A bar's open and close in milliseconds."""

    open_ms: int
    close_ms: int
    inside: bool
    """Whether it overlaps a session."""
    closed_day: bool = False
    """Whether it is a daily bar of a date without a session."""
    early_ms: int | None = None
    """A close or break within the bar after which trading resumes: the bar ended there if the next bar opens before `close_ms`."""


@dataclass(frozen=True, slots=True)
class Slots:
    """The rules for the timestamps of one interval."""

    calendar: SessionCalendar
    interval: str
    zone: dt.tzinfo
    """Of times that name none."""
    exchange_zone: dt.tzinfo
    stamp: Stamp
    whole: bool
    """Whether bars may run past the session's close, as in files with after-market trades."""
    zone_known: bool = False
    """Whether `zone` is that of the file, and not inferred: midnight is then an instant, and not a session's date."""

    def span(self, moment: ParsedTime, after_ms: int | None = None) -> Span:
        """Return when the bar stamped `moment` opened and closed; raise ValueError with what is wrong with it, CalendarError.

        `after_ms` is the previous instant in the file; it resolves the repeated hour when clocks are set back.
        """
        length = interval_ms(self.interval)
        if self.interval[-1] not in "dw" and length % DAY_MS:
            return self._intraday(moment.instant_ms(self.zone, after_ms), length)
        if self.calendar.always_open:
            return self._by_clock(moment, length, after_ms)
        days = length // DAY_MS
        if days == 1:
            return self._session(moment)
        if days == _WEEK_DAYS:
            return self._week(self._label(moment))
        raise ValueError(f"cannot be the bar of {self.interval} of calendar {self.calendar.name}; only 1d and 1w bars of sessions are read")

    def _intraday(self, at_ms: int, length: int) -> Span:
        if self.stamp == "close":
            slot = self.calendar.bar_bounds(self.interval, at_ms - 1)
            if slot is not None and slot[1] == at_ms and not self.whole:
                return Span(*slot, inside=True)
            return Span(at_ms - length, at_ms, self._is_inside(at_ms - length, at_ms))
        end = at_ms + length
        slot = self.calendar.bar_bounds(self.interval, at_ms)
        if slot is None:
            return Span(at_ms, end, self._is_inside(at_ms, end))
        # A bar that reaches past a close or break ends there, unless trading resumes within the bar.
        at = slot[1]
        while at < end and (following := self.calendar.bar_bounds(self.interval, at)) is not None:
            at = following[1]
        if at >= end:
            return Span(at_ms, end, inside=True)
        if not self.whole and self.calendar.next_open_ms(at) >= end:
            return Span(at_ms, at, inside=True)
        return Span(at_ms, end, inside=True, early_ms=at)

    def _is_inside(self, open_ms: int, close_ms: int) -> bool:
        self.calendar.check_covers(open_ms)
        return self.calendar.is_open(open_ms) or self.calendar.next_open_ms(open_ms) < close_ms

    def _by_clock(self, moment: ParsedTime, length: int, after_ms: int | None) -> Span:
        """Return the span of a daily or weekly bar of a market that never closes: local days, or from its own time on."""
        if moment.date_only and self.stamp == "close":
            moment = ParsedTime(moment.wall_ms + DAY_MS, moment.offset_ms)
        at_ms = moment.instant_ms(self.zone, after_ms)
        if self.stamp == "close":
            return Span(at_ms - length, at_ms, inside=True)
        end_ms = at_ms + length
        if moment.offset_ms is None and moment.at_midnight:
            end_ms = ParsedTime(moment.wall_ms + length, None).instant_ms(self.zone)
        # A day has 25 hours when clocks are set back; the contract allows 24, and the close must not be early.
        return Span(max(at_ms, end_ms - length), end_ms, inside=True)

    def _session(self, moment: ParsedTime) -> Span:
        calendar = self.calendar
        dated = moment.offset_ms is None and moment.at_midnight and not self.zone_known
        if not moment.date_only and not dated:
            at_ms = moment.instant_ms(self.zone)
            slot = calendar.bar_bounds("1d", at_ms)
            if slot is not None and slot[0] == at_ms and self.stamp == "open":
                return Span(*slot, inside=True)
            ended = calendar.bar_bounds("1d", at_ms - 1)
            if ended is not None and ended[1] == at_ms and self.stamp == "close":
                return Span(*ended, inside=True)
            begin_ms = at_ms - DAY_MS if self.stamp == "close" else at_ms
            label = self._midnight(moment)
            if label is None and not self._has_long_sessions(at_ms):
                hint = "; if times are the bars' closes, set --stamp close" if ended is not None and ended[1] == at_ms else ""
                raise ValueError(f"is neither the open of a session of calendar {calendar.name} nor midnight{hint}")
            session = None if label is None else calendar.session_on(label)
            if session is not None and begin_ms <= session[0] and calendar.next_open_ms(session[1]) >= begin_ms + DAY_MS:
                return Span(*session, inside=True)
            if session is not None or self._has_long_sessions(at_ms):
                # A calendar day with more trading than the session of that date: it ends after the session does.
                return Span(begin_ms, begin_ms + DAY_MS, self._is_inside(begin_ms, begin_ms + DAY_MS))
        session = calendar.session_on(moment.date)
        if session is None:
            raise NoSessionError(f"is in no session of calendar {calendar.name}; remove the row, or use --calendar 24x7")
        return Span(*session, inside=True)

    def _has_long_sessions(self, at_ms: int) -> bool:
        """Return whether sessions near `at_ms` are longer than half a day."""
        self.calendar.check_covers(at_ms)
        slot = self.calendar.bar_bounds("1d", self.calendar.next_open_ms(at_ms))
        return slot is not None and slot[1] - slot[0] > _LONG_SESSION_MS

    def _midnight(self, moment: ParsedTime) -> dt.date | None:
        """Return the date that starts then, as written, at the exchange or in UTC; None when none does."""
        at_ms = moment.instant_ms(self.zone)
        for one in (moment, self._in_exchange_zone(moment), ParsedTime(at_ms, 0)):
            if one.at_midnight:
                return one.date
        return None

    def _label(self, moment: ParsedTime) -> dt.date:
        """Return a timestamp's date: of the session that opens then, the exchange's if it is midnight there, else as written."""
        if moment.offset_ms is not None or (self.zone_known and not moment.date_only):
            at_ms = moment.instant_ms(self.zone)
            slot = self.calendar.bar_bounds("1d", at_ms)
            if slot is not None and slot[0] == at_ms:
                return dt.datetime.fromtimestamp((slot[1] - 1) / 1_000, self.exchange_zone).date()
        if not moment.at_midnight and (local := self._in_exchange_zone(moment)).at_midnight:
            return local.date
        return moment.date

    def _in_exchange_zone(self, moment: ParsedTime) -> ParsedTime:
        if moment.offset_ms is None:
            return moment
        at = dt.datetime.fromtimestamp(moment.instant_ms(self.zone) / 1_000, self.exchange_zone)
        offset_ms = round((at.utcoffset() or dt.timedelta()).total_seconds() * 1_000)
        return ParsedTime(moment.instant_ms(self.zone) + offset_ms, offset_ms)

    def _week(self, label: dt.date) -> Span:
        monday = label - dt.timedelta(days=label.weekday())
        days = [day for at in range(_WEEK_DAYS) if self.calendar.session_on(day := monday + dt.timedelta(days=at)) is not None]
        if not days:
            raise ValueError(f"is in a week without a session of calendar {self.calendar.name}")
        taken = monday <= label <= days[0] if self.stamp == "open" else days[-1] <= label
        if not taken:
            other = "close" if self.stamp == "open" else "open"
            raise ValueError(
                f"is a {label:%A} and does not {'start' if self.stamp == 'open' else 'end'} a week; "
                f"if times are the weeks' {'ends' if other == 'close' else 'starts'}, set --stamp {other}"
            )
        first, last = self.calendar.session_on(days[0]), self.calendar.session_on(days[-1])
        if first is None or last is None:
            raise ValueError(f"is in no session of calendar {self.calendar.name}")
        return Span(first[0], last[1], inside=True)


def exchange_zone(calendar: str) -> dt.tzinfo:
    """Return the time zone in which a calendar's sessions have their dates; UTC for `24x7`."""
    known = SessionCalendar.of(calendar)
    return dt.UTC if known.always_open else ZoneInfo(known.zone)
