"""Assigns open and close times to a file's bars and checks that they form a series: no duplicates, no overlaps, one interval."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Final, NamedTuple

from schemas import interval_ms
from services.core.calendar import ALWAYS_OPEN, CalendarError, SessionCalendar
from services.feeds.file_table import FileError, Table
from services.feeds.intervals import check_spacing
from services.feeds.layouts import Layout
from services.feeds.read_options import ReadOptions
from services.feeds.row_values import RawBar
from services.feeds.stamp_rules import NoSessionError, Slots, Span, exchange_zone
from services.feeds.time_text import DAY_MS, time_zone

OUTSIDE: Final = "before or after the session"
CLOSED_DAY: Final = "without a trade, on days without a session"
_HOUR_MS: Final = 3_600_000
_LAST_MS: Final = 999
_PRE_MARKET_MS: Final = 19_800_000
_AFTER_MARKET_MS: Final = 14_400_000


class TimedBar(NamedTuple):
    """A bar with its open and close."""

    bar: RawBar
    span: Span


class TimeAssigner:
    """Assigns times to the bars of one layout."""

    def __init__(self, table: Table, layout: Layout, options: ReadOptions, time_name: str) -> None:
        """Raise FileError when the time zone is not known, CalendarError."""
        self._table = table
        self._options = options
        self._time_name = time_name
        self._layout = layout.name
        self._calendar = SessionCalendar.of(options.calendar)
        self._home = exchange_zone(options.calendar)
        self._zone: dt.tzinfo | None = None
        try:
            if (name := options.time_zone or layout.zone) is not None:
                self._zone = time_zone(name)
        except ValueError as error:
            raise FileError(f"{table.path}: --time-zone {error}") from None
        self.left_out: Counter[str] = Counter()
        self.notes: list[str] = []

    def assign(self, bars: Sequence[RawBar]) -> list[TimedBar]:
        """Return the bars with their times, by symbol, interval and time; raise FileError, CalendarError."""
        spans = [self._stated(bar) for bar in bars] if bars[0].begin_ms is not None else self._spans(bars)
        timed = [TimedBar(bar, span) for bar, span in zip(bars, spans, strict=True)]
        kept = [one for one in timed if one.span.inside or (self._options.extended and not one.span.closed_day)]
        if closed := sum(one.span.closed_day for one in timed):
            self.left_out[CLOSED_DAY] += closed
        if (outside := len(timed) - len(kept) - closed) > 0:
            self.left_out[OUTSIDE] += outside
        if any(before.span.open_ms > after.span.open_ms for before, after in pairwise(timed)) and _one_series(bars):
            self.notes.append("rows were not in time order")
        groups: dict[tuple[str, str], list[TimedBar]] = {}
        for one in kept:
            groups.setdefault((one.bar.symbol, one.bar.interval), []).append(one)
        return [one for (_, interval), group in groups.items() for one in self._series(interval, group)]

    def _stated(self, bar: RawBar) -> Span:
        """Return the open and close that Aquiline's own layout states."""
        span, length = (bar.end_ms or 0) - (bar.begin_ms or 0), interval_ms(bar.interval)
        if not 0 < span <= length:
            raise self._table.error(bar.row, f"ts_close_ms is {span} ms after ts_open_ms; a bar of {bar.interval} has from 1 to {length}")
        return Span(bar.begin_ms or 0, bar.end_ms or 0, inside=True)

    def _spans(self, bars: Sequence[RawBar]) -> list[Span]:
        naive = [bar for bar in bars if bar.moment.offset_ms is None and not _by_session(bar)]
        zone = self._zone or (self._zone_of(naive) if naive else dt.UTC)
        if naive and self._zone is None:
            self.notes.append(f"times have no zone and are read as {_name(zone)}")
        spans = self._read(bars, zone, whole=False)
        if any(not span.inside for span in spans):
            if not any(span.inside for span in spans):
                problem = f"is in no session of calendar {self._calendar.name}{_read_as(naive, zone)}, and neither does any other row"
                raise self._error(bars[0], f"{problem}; set --time-zone to the file's time zone, or use another --calendar")
            # With trades after the session in the file, the last bar of a session may hold some of them too.
            spans = self._read(bars, zone, whole=True)
        return [self._not_before_its_end(bar, span) for bar, span in zip(bars, spans, strict=True)]

    def _not_before_its_end(self, bar: RawBar, span: Span) -> Span:
        """Return the span, extended to the end that the file states when that is later than the calendar's."""
        if bar.end_ms is None or bar.end_ms <= span.close_ms:
            return span
        if bar.end_ms - span.open_ms > interval_ms(bar.interval):
            raise self._table.error(
                bar.row, f"the bar opens at {bar.cell} and closes later than {bar.interval} after it; rows of another interval?"
            )
        return span._replace(close_ms=bar.end_ms)

    def _zone_of(self, bars: Sequence[RawBar]) -> dt.tzinfo:
        """Return the time zone of naive times: the exchange's or UTC, whichever puts more of them in or near sessions."""
        if self._options.calendar == ALWAYS_OPEN:
            return dt.UTC
        if self._layout.startswith("MetaTrader"):
            raise FileError(
                f"{self._table.path}: {self._time_name} is the time of the broker's server, whose zone the file does not have; set "
                "--time-zone to it, such as Europe/Athens for a server at UTC+2 in winter and UTC+3 in summer"
            )
        counts = {zone: self._inside(bars, zone) for zone in (self._home, dt.UTC)}
        ours, utc = counts[self._home], counts[dt.UTC]
        if ours == utc and self._home != dt.UTC and ours[0] > 0:
            home = _name(self._home)
            raise FileError(
                f"{self._table.path}: {self._time_name} has no time zone, and as many bars are in sessions of calendar "
                f"{self._calendar.name} as UTC and as {home}; set --time-zone UTC or --time-zone {home}"
            )
        return self._home if ours > utc else dt.UTC

    def _inside(self, bars: Sequence[RawBar], zone: dt.tzinfo) -> tuple[int, int]:
        calendar, inside, near = self._calendar, 0, 0
        last = self._options.stamp == "close"
        for bar in bars:
            try:
                at_ms = bar.moment.instant_ms(zone) - last
            except ValueError:
                continue
            if interval_ms(bar.interval) >= DAY_MS:
                opens, closes = calendar.bar_bounds("1d", at_ms), calendar.bar_bounds("1d", at_ms - 1)
                inside += (opens is not None and opens[0] == at_ms) or (closes is not None and closes[1] == at_ms + last)
            elif calendar.is_open(at_ms):
                inside += 1
            elif calendar.next_open_ms(at_ms) - at_ms <= _PRE_MARKET_MS or calendar.is_open(at_ms - _AFTER_MARKET_MS):
                near += 1
        return inside, inside + near

    def _read(self, bars: Sequence[RawBar], zone: dt.tzinfo, *, whole: bool) -> list[Span]:
        base = Slots(self._calendar, "1m", zone, self._home, self._options.stamp, whole, self._zone is not None)
        slots: dict[str, Slots] = {}
        before: dict[tuple[str, str], int] = {}
        spans: dict[int, Span] = {}
        falling = bars[0].moment.wall_ms > bars[-1].moment.wall_ms
        for at in reversed(range(len(bars))) if falling else range(len(bars)):
            bar = bars[at]
            if self._options.stamp == "close" and bar.moment.wall_ms % 1_000 == _LAST_MS:
                bar = bar._replace(moment=replace(bar.moment, wall_ms=bar.moment.wall_ms + 1))  # an inclusive end, as Binance writes it
            key = bar.symbol, bar.interval
            if bar.interval not in slots:
                slots[bar.interval] = replace(base, interval=bar.interval)
            self._check_date(bar)
            try:
                spans[at] = slots[bar.interval].span(bar.moment, before.get(key))
                before[key] = bar.moment.instant_ms(zone, before.get(key))
            except NoSessionError as error:
                if not _without_trade(bar):
                    raise self._error(bar, str(error)) from error
                spans[at] = Span(bar.moment.wall_ms, bar.moment.wall_ms + interval_ms(bar.interval), inside=False, closed_day=True)
            except CalendarError as error:
                raise self._table.error(bar.row, f"{self._time_name} is {bar.cell}: {error}") from error
            except (ValueError, OverflowError) as error:
                raise self._error(bar, str(error)) from error
            if spans[at].open_ms < 0:
                raise self._error(bar, "is before 1970; remove the earlier bars")
            if spans[at].open_ms > self._options.now_ms:
                raise self._error(bar, "is in the future")
        return [spans[at] for at in range(len(bars))]

    def _check_date(self, bar: RawBar) -> None:
        """Raise FileError when the time is before 1970 or in the future in every time zone."""
        if bar.moment.wall_ms < -DAY_MS:
            raise self._error(bar, "is before 1970; remove the earlier bars")
        if bar.moment.wall_ms > self._options.now_ms + 2 * DAY_MS:
            raise self._error(bar, "is in the future")

    def _error(self, bar: RawBar, problem: str) -> FileError:
        return self._table.error(bar.row, f"{self._time_name} is {bar.cell}, which {problem}")

    def _series(self, interval: str, group: list[TimedBar]) -> list[TimedBar]:
        """Return one symbol's bars of one interval in time order, without duplicates."""
        group.sort(key=lambda one: (one.span.open_ms, one.bar.revision, one.bar.row.number))
        series: list[TimedBar] = []
        for one in group:
            if series and series[-1].span.open_ms == one.span.open_ms and series[-1].bar.revision == one.bar.revision:
                before = series[-1]
                if (before.bar.prices, before.bar.volume) != (one.bar.prices, one.bar.volume):
                    if self._options.growing:
                        series[-1] = one
                        self.left_out["replaced by a later row"] += 1
                        continue
                    other = f"{self._table.unit} {before.bar.row.number}"
                    raise self._error(one.bar, f"{other} also has, with different values; remove one of them")
                self.left_out["duplicate"] += 1
                continue
            series.append(one)
        opens = [one.span.open_ms for one in series]
        try:
            check_spacing(opens, interval)
        except ValueError as error:
            raise FileError(f"{self._table.path}: {error}") from None
        if interval[-1] in "dw":
            series = _by_following(series, interval_ms(interval))
        series = _by_breaks(series)
        for before, after in pairwise(series):
            if after.span.open_ms < before.span.close_ms and after.span.open_ms != before.span.open_ms:
                other = f"the bar of {interval} of {self._table.unit} {before.bar.row.number}"
                raise self._error(after.bar, f"is before {other} ends; does the file mix intervals?")
        return series


def _by_following(series: list[TimedBar], length: int) -> list[TimedBar]:
    """Return daily bars that are 23 or 25 hours long where the next bar shows a change to or from summer time."""
    ends = [*(after.span.open_ms for after in series[1:]), None]
    out = []
    for one, end_ms in zip(series, ends, strict=True):
        open_ms, close_ms = one.span.open_ms, one.span.close_ms
        if end_ms is not None and close_ms - open_ms == length and 0 < abs(end_ms - open_ms - length) <= _HOUR_MS:
            open_ms, close_ms = max(open_ms, end_ms - length), end_ms
        out.append(one._replace(span=one.span._replace(open_ms=open_ms, close_ms=close_ms)))
    return out


def _by_breaks(series: list[TimedBar]) -> list[TimedBar]:
    """Return bars cut at a close or break within them when the next bar opens before they would end."""
    out = series[:1]
    for after in series[1:]:
        before = out[-1].span
        if before.early_ms is not None and before.early_ms <= after.span.open_ms < before.close_ms:
            out[-1] = out[-1]._replace(span=before._replace(close_ms=before.early_ms))
        out.append(after)
    return out


def _one_series(bars: Sequence[RawBar]) -> bool:
    return len({(bar.symbol, bar.interval) for bar in bars}) == 1


def _without_trade(bar: RawBar) -> bool:
    """Return whether the bar repeats a price, or has no volume: some providers write such rows for days without a session."""
    return bar.volume == 0 or len(set(bar.prices)) == 1


def _by_session(bar: RawBar) -> bool:
    """Return whether a timestamp is a date; a time zone does not change its session."""
    return bar.moment.date_only or (interval_ms(bar.interval) >= DAY_MS and bar.moment.at_midnight)


def _read_as(naive: Sequence[RawBar], zone: dt.tzinfo) -> str:
    return f" when it is read as {_name(zone)}" if naive else ""


def _name(zone: dt.tzinfo) -> str:
    return "UTC" if zone == dt.UTC else str(zone)
