"""When a bar of a file opened and when it was known: what a stamp means, by interval, calendar and time zone. Pure.

A bar keeps the open that its file states and is never closed before it can have ended. Where a stamp can mean two things, of which
one would be known too early, it is refused.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple
from zoneinfo import ZoneInfo

from schemas import interval_ms
from services.core.calendar import SessionCalendar
from services.feeds.moments import DAY_MS, Moment

Stamp = Literal["open", "close"]
"""Which end of its bar a time is."""

_HOUR_MS: Final = 3_600_000
_LONG_SESSION_MS: Final = 12 * _HOUR_MS
"""Shorter sessions lie within a date wherever one stands; a longer one may hold parts of two, and a date then says too little."""
_WEEK_DAYS: Final = 7


class Span(NamedTuple):
    """A bar's open and close in milliseconds."""

    open_ms: int
    close_ms: int
    inside: bool
    """Whether any of it lies in a session."""
    early_ms: int | None = None
    """A close or break within it, after which trading starts again: it ended there if the next bar opens before it ends."""


@dataclass(frozen=True, slots=True)
class Slots:
    """How the stamps of one interval are read."""

    calendar: SessionCalendar
    interval: str
    zone: dt.tzinfo
    """Of times that name none."""
    exchange_zone: dt.tzinfo
    stamp: Stamp
    whole: bool
    """Whether bars run over the session's close, as they do in files that hold trades after it."""

    def span(self, moment: Moment, after_ms: int | None = None) -> Span:
        """Return when the bar stamped `moment` opened and closed; raise ValueError with what is wrong with it, CalendarError.

        `after_ms` is the instant before it in the file, for the hour that comes twice.
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
        # The last trade of a bar that reaches over a close or a break is before that, unless trading starts again within the bar.
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

    def _by_clock(self, moment: Moment, length: int, after_ms: int | None) -> Span:
        """Return the span of a bar of whole days of a market that is always open: of its zone's days, or from its own time on."""
        if moment.date_only and self.stamp == "close":
            moment = Moment(moment.wall_ms + DAY_MS, moment.offset_ms)
        at_ms = moment.instant_ms(self.zone, after_ms)
        if self.stamp == "close":
            return Span(at_ms - length, at_ms, inside=True)
        end_ms = at_ms + length
        if moment.offset_ms is None and moment.at_midnight:
            end_ms = Moment(moment.wall_ms + length, None).instant_ms(self.zone)
        # A day on which clocks are set back has 25 hours: a bar of 24 is the one that ends when the day does.
        return Span(max(at_ms, end_ms - length), end_ms, inside=True)

    def _session(self, moment: Moment) -> Span:
        calendar = self.calendar
        if not moment.date_only and not (moment.offset_ms is None and moment.at_midnight):
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
                hint = "; if files stamp bars at their ends, say --stamp close" if ended is not None and ended[1] == at_ms else ""
                raise ValueError(f"is neither the open of a session of calendar {calendar.name} nor midnight{hint}")
            session = None if label is None else calendar.session_on(label)
            if session is not None and begin_ms <= session[0] and calendar.next_open_ms(session[1]) >= begin_ms + DAY_MS:
                return Span(*session, inside=True)
            if session is not None or self._has_long_sessions(at_ms):
                # A day of someone's clock, in which more is traded than the session of that date: it may end hours later.
                return Span(begin_ms, begin_ms + DAY_MS, self._is_inside(begin_ms, begin_ms + DAY_MS))
        session = calendar.session_on(moment.date)
        if session is None:
            raise ValueError(f"lies in no session of calendar {calendar.name}")
        return Span(*session, inside=True)

    def _has_long_sessions(self, at_ms: int) -> bool:
        """Return whether a session near `at_ms` is longer than half a day."""
        self.calendar.check_covers(at_ms)
        slot = self.calendar.bar_bounds("1d", self.calendar.next_open_ms(at_ms))
        return slot is not None and slot[1] - slot[0] > _LONG_SESSION_MS

    def _midnight(self, moment: Moment) -> dt.date | None:
        """Return the date that begins then, as written, at the exchange or in UTC; None where none does."""
        at_ms = moment.instant_ms(self.zone)
        for one in (moment, self._in_exchange_zone(moment), Moment(at_ms, 0)):
            if one.at_midnight:
                return one.date
        return None

    def _label(self, moment: Moment) -> dt.date:
        """Return a stamp's date: of the session that opens then, at the exchange where it is midnight there, or as written."""
        if moment.offset_ms is not None:
            at_ms = moment.instant_ms(self.zone)
            slot = self.calendar.bar_bounds("1d", at_ms)
            if slot is not None and slot[0] == at_ms:
                return dt.datetime.fromtimestamp((slot[1] - 1) / 1_000, self.exchange_zone).date()
        if not moment.at_midnight and (local := self._in_exchange_zone(moment)).at_midnight:
            return local.date
        return moment.date

    def _in_exchange_zone(self, moment: Moment) -> Moment:
        if moment.offset_ms is None:
            return moment
        at = dt.datetime.fromtimestamp(moment.instant_ms(self.zone) / 1_000, self.exchange_zone)
        offset_ms = round((at.utcoffset() or dt.timedelta()).total_seconds() * 1_000)
        return Moment(moment.instant_ms(self.zone) + offset_ms, offset_ms)

    def _week(self, label: dt.date) -> Span:
        monday = label - dt.timedelta(days=label.weekday())
        days = [day for at in range(_WEEK_DAYS) if self.calendar.session_on(day := monday + dt.timedelta(days=at)) is not None]
        if not days:
            raise ValueError(f"lies in a week without a session of calendar {self.calendar.name}")
        taken = monday <= label <= days[0] if self.stamp == "open" else days[-1] <= label
        if not taken:
            other = "close" if self.stamp == "open" else "open"
            raise ValueError(
                f"is a {label:%A}, which is not when a week {'begins' if self.stamp == 'open' else 'ends'}; "
                f"if files stamp weeks at their {'ends' if other == 'close' else 'starts'}, say --stamp {other}"
            )
        first, last = self.calendar.session_on(days[0]), self.calendar.session_on(days[-1])
        if first is None or last is None:
            raise ValueError(f"lies in no session of calendar {self.calendar.name}")
        return Span(first[0], last[1], inside=True)


def exchange_zone(calendar: str) -> dt.tzinfo:
    """Return the time zone in which a calendar's sessions have their dates; UTC for `24x7`."""
    known = SessionCalendar.of(calendar)
    return dt.UTC if known.always_open else ZoneInfo(known.zone)
