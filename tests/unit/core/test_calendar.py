"""Calendars: sessions and bars as an exchange keeps them, against plain enumeration."""

from __future__ import annotations

import datetime as dt
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.core.calendar import CalendarError, SessionCalendar
from services.core.calendar_data import Sessions

MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
INTERVALS = ["1m", "5m", "15m", "1h", "4h", "7h", "1d", "2d", "1w", "2w"]


def ms(text: str) -> int:
    return round(dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC).timestamp() * 1_000)


@st.composite
def calendars(draw: st.DrawFn) -> SessionCalendar:
    """Sessions of whole minutes on some days of ten weeks, never overlapping, some with a break."""
    first = draw(st.integers(10_000, 10_013))
    days = [first + number for number in range(70) if draw(st.booleans())] or [first]
    columns: list[list[int]] = [[], [], [], []]
    for day in days:
        with_break = draw(st.booleans())
        size = 4 if with_break else 2
        minutes = sorted(draw(st.lists(st.integers(0, 1_440), min_size=size, max_size=size, unique=True)))
        opens, starts, ends, closes = minutes if with_break else (minutes[0], minutes[0], minutes[0], minutes[1])
        for column, minute in zip(columns, (opens, closes, starts, ends), strict=True):
            column.append(day * DAY + minute * MINUTE)
    first_open, last_close, starts_ms, ends_ms = (np.array(column, dtype=np.int64) for column in columns)
    return SessionCalendar("TEST", Sessions(np.array(days, dtype=np.int64), first_open, last_close, starts_ms, ends_ms, "UTC"))


def spans(calendar: SessionCalendar) -> list[tuple[int, int]]:
    """When the market trades without interruption."""
    return list(zip(calendar._span_opens.tolist(), calendar._span_closes.tolist(), strict=True))


def all_bars(calendar: SessionCalendar, interval: str) -> list[tuple[int, int]]:
    """Every scheduled bar, found by walking each span of trading from bar to bar."""
    bars: list[tuple[int, int]] = []
    for opens, closes in spans(calendar):
        at = opens
        while at < closes:
            bounds = calendar.bar_bounds(interval, at)
            assert bounds is not None
            if not bars or bars[-1] != bounds:
                bars.append(bounds)
            at = bounds[1]
    return bars


@settings(max_examples=60, deadline=None)
@given(calendars(), st.sampled_from(INTERVALS[1:]), st.data())
def test_counts_and_next_closes_are_those_of_walking_through_the_sessions(
    calendar: SessionCalendar, interval: str, data: st.DataObject
) -> None:
    bars = all_bars(calendar, interval)
    closes = [close for _, close in bars]
    assert closes == sorted(set(closes))
    moments = st.one_of(st.sampled_from(closes), st.integers(9_990 * DAY, 10_100 * DAY))
    after, until = data.draw(moments), data.draw(moments)
    assert calendar.slots_between(interval, after, until) == sum(after < close <= until for close in closes)
    coming = [close for close in closes if close > after]
    assert calendar.next_closes(interval, after, len(coming)) == coming
    with pytest.raises(CalendarError, match="lies outside"):
        calendar.next_closes(interval, after, len(coming) + 1)


@settings(max_examples=60, deadline=None)
@given(calendars(), st.integers(9_990 * DAY, 10_100 * DAY))
def test_a_moment_is_in_a_session_or_before_the_next_one(calendar: SessionCalendar, ts_ms: int) -> None:
    sessions = list(zip(calendar._opens.tolist(), calendar._closes.tolist(), strict=True))
    closing = [close for opens, close in sessions if opens <= ts_ms < close]
    trading = any(opens <= ts_ms < close for opens, close in spans(calendar))
    assert calendar.is_open(ts_ms) == trading
    assert calendar.session_close_ms(ts_ms) == (closing[0] if closing else None)
    later = [opens for opens, _ in spans(calendar) if opens >= ts_ms]
    if later:
        assert calendar.next_open_ms(ts_ms) == later[0]
    else:
        with pytest.raises(CalendarError, match="lies outside"):
            calendar.next_open_ms(ts_ms)
    for interval in INTERVALS:
        bounds = calendar.bar_bounds(interval, ts_ms)
        assert (bounds is not None) == (bool(closing) if interval[-1] in "dw" else trading)
        assert bounds is None or bounds[0] <= ts_ms < bounds[1]


@settings(max_examples=60, deadline=None)
@given(calendars(), st.sampled_from(["1m", "5m", "1h", "4h", "7h"]))
def test_only_the_last_bar_before_a_break_or_a_close_may_be_short(calendar: SessionCalendar, interval: str) -> None:
    ends = {close for _, close in spans(calendar)}
    length = {"1m": MINUTE, "5m": 5 * MINUTE, "1h": HOUR, "4h": 4 * HOUR, "7h": 7 * HOUR}[interval]
    for opens, closes in all_bars(calendar, interval):
        assert closes - opens == length or (closes - opens < length and closes in ends)


@given(st.sampled_from(INTERVALS), st.integers(0, 3_000_000_000_000), st.integers(0, 100))
def test_an_always_open_market_is_plain_arithmetic(interval: str, ts_ms: int, count: int) -> None:
    calendar = SessionCalendar.of("24x7")
    closes = calendar.next_closes(interval, ts_ms, count)
    assert calendar.slots_between(interval, ts_ms, closes[-1] if closes else ts_ms) == count
    assert calendar.is_open(ts_ms)
    assert calendar.session_close_ms(ts_ms) is None
    assert calendar.next_open_ms(ts_ms) == ts_ms
    for close in closes:
        bounds = calendar.bar_bounds(interval, close - 1)
        assert bounds is not None
        assert bounds[1] == close


def test_days_of_an_always_open_market_end_at_midnight_and_weeks_on_mondays() -> None:
    calendar = SessionCalendar.of("24x7")
    noon = ms("2024-07-03T12:00")
    assert calendar.bar_bounds("1d", noon) == (ms("2024-07-03"), ms("2024-07-04"))
    assert calendar.bar_bounds("1w", noon) == (ms("2024-07-01"), ms("2024-07-08"))
    assert calendar.session_on(dt.date(2024, 7, 3)) == (ms("2024-07-03"), ms("2024-07-04"))


def test_new_york_keeps_its_half_days_holidays_and_summer_time() -> None:
    calendar = SessionCalendar.of("XNYS")
    half_day = ms("2024-07-03T16:30")
    assert calendar.session_close_ms(half_day) == ms("2024-07-03T17:00")
    assert calendar.bar_bounds("1h", half_day) == (ms("2024-07-03T16:30"), ms("2024-07-03T17:00"))
    assert calendar.bar_bounds("1d", half_day) == (ms("2024-07-03T13:30"), ms("2024-07-03T17:00"))
    assert calendar.bar_bounds("1w", half_day) == (ms("2024-07-01T13:30"), ms("2024-07-05T20:00"))
    assert calendar.session_on(dt.date(2024, 7, 4)) is None
    assert calendar.next_closes("1d", half_day, 2) == [ms("2024-07-03T17:00"), ms("2024-07-05T20:00")]
    assert calendar.next_open_ms(half_day) == ms("2024-07-05T13:30")
    assert calendar.slots_between("1m", ms("2024-07-03T13:30"), ms("2024-07-05T20:00")) == 210 + 390
    assert calendar.session_on(dt.date(2024, 1, 3)) == (ms("2024-01-03T14:30"), ms("2024-01-03T21:00"))


@pytest.mark.parametrize(
    ("day", "opens_at"),
    [
        pytest.param("2024-01-03", "14:30", id="winter"),
        pytest.param("2024-07-02", "13:30", id="summer"),
    ],
)
@pytest.mark.parametrize(
    ("interval", "minutes_after_the_open"),
    [
        ("4h", [240, 390]),
        ("1h", [60, 120, 180, 240, 300, 360, 390]),
        ("2h", [120, 240, 360, 390]),
        ("15m", list(range(15, 391, 15))),
    ],
)
def test_intraday_bars_of_new_york_are_the_same_in_winter_and_in_summer(
    day: str, opens_at: str, interval: str, minutes_after_the_open: list[int]
) -> None:
    opens = ms(f"{day}T{opens_at}")
    closes = SessionCalendar.of("XNYS").next_closes(interval, opens, len(minutes_after_the_open))
    assert closes == [opens + minutes * MINUTE for minutes in minutes_after_the_open]


@pytest.mark.parametrize(
    ("name", "day", "interval", "closes"),
    [
        ("XTKS", "2024-07-02", "1h", ["01:00", "02:00", "02:30", "04:30", "05:30", "06:00"]),
        ("XHKG", "2024-07-02", "1h", ["02:30", "03:30", "04:00", "06:00", "07:00", "08:00"]),
        ("XSHG", "2024-07-02", "1h", ["02:30", "03:30", "06:00", "07:00"]),
        ("XSHG", "2024-07-02", "4h", ["03:30", "07:00"]),
        ("XSHG", "2024-07-02", "1d", ["07:00"]),
        ("XHKG", "2024-12-24", "1h", ["02:30", "03:30", "04:00"]),
        ("XLON", "2024-07-02", "4h", ["11:00", "15:00", "15:30"]),
        ("XLON", "2024-12-24", "4h", ["12:00", "12:30"]),
        ("XBOM", "2024-07-02", "1h", ["04:45", "05:45", "06:45", "07:45", "08:45", "09:45", "10:00"]),
        ("CMES", "2024-07-02", "8h", ["06:00", "14:00", "21:00"]),
        ("FX", "2024-07-02", "8h", ["05:00", "13:00", "21:00"]),
        ("FX", "2024-01-03", "8h", ["06:00", "14:00", "22:00"]),
    ],
)
def test_bars_are_counted_from_the_open_and_from_the_end_of_a_break(name: str, day: str, interval: str, closes: list[str]) -> None:
    calendar = SessionCalendar.of(name)
    session = calendar.session_on(dt.date.fromisoformat(day))
    assert session is not None
    found = calendar.next_closes(interval, session[0], calendar.slots_between(interval, *session))
    assert found == [ms(f"{day}T{close}") for close in closes]


def test_lunch_is_no_trading_and_no_end_of_the_session() -> None:
    calendar = SessionCalendar.of("XTKS")
    lunch = ms("2024-07-02T03:00")
    assert not calendar.is_open(lunch)
    assert calendar.bar_bounds("1m", lunch) is None
    assert calendar.next_open_ms(lunch) == ms("2024-07-02T03:30")
    assert calendar.session_close_ms(lunch) == ms("2024-07-02T06:00")
    assert calendar.slots_between("1m", ms("2024-07-02T02:30"), ms("2024-07-02T03:31")) == 1


def test_globex_halts_for_an_hour_of_maintenance_each_day_and_closes_early_on_holidays() -> None:
    calendar = SessionCalendar.of("CMES")
    assert calendar.session_on(dt.date(2024, 7, 2)) == (ms("2024-07-01T22:00"), ms("2024-07-02T21:00"))
    assert not calendar.is_open(ms("2024-07-02T21:30"))
    assert calendar.session_on(dt.date(2024, 7, 4)) == (ms("2024-07-03T22:00"), ms("2024-07-04T17:00"))
    assert SessionCalendar.of("CME").session_on(dt.date(2024, 7, 2)) == calendar.session_on(dt.date(2024, 7, 2))


def test_the_fx_week_runs_from_sunday_to_friday_at_five_in_new_york() -> None:
    calendar = SessionCalendar.of("FX")
    assert calendar.zone == "America/New_York"
    friday, sunday = ms("2024-07-05T21:00"), ms("2024-07-07T21:00")
    assert calendar.is_open(friday - 1)
    assert not calendar.is_open(friday)
    assert calendar.next_open_ms(friday) == sunday
    assert calendar.bar_bounds("1d", sunday) == (sunday, sunday + DAY)
    assert calendar.bar_bounds("1w", sunday) == (sunday, sunday + 5 * DAY)
    assert calendar.slots_between("1m", ms("2024-06-30T21:00"), friday) == 5 * 1_440
    assert calendar.next_open_ms(ms("2024-11-01T21:00")) == ms("2024-11-03T22:00"), "the first session after summer time"
    assert calendar.session_on(dt.date(2024, 12, 25)) is None
    assert calendar.session_on(dt.date(2024, 7, 6)) is None


@pytest.mark.parametrize(
    ("name", "first"),
    [("XNYS", "1970-01-02"), ("XLON", "1970-01-02"), ("FX", "1970-01-05"), ("XTKS", "1997-01-06"), ("XSHG", "1991-01-02")],
)
def test_calendars_reach_back_to_1970_or_their_own_start(name: str, first: str) -> None:
    assert SessionCalendar.of(name).session_on(dt.date.fromisoformat(first)) is not None


def test_a_day_that_a_calendar_does_not_cover_is_told_as_its_limit_and_not_as_a_day_without_a_session() -> None:
    calendar = SessionCalendar.of("XTKS")
    with pytest.raises(CalendarError, match=r"calendar XTKS is known from 1997-01-\d\dT00:00Z until .*, and 1996-12-27 lies outside"):
        calendar.session_on(dt.date(1996, 12, 27))
    with pytest.raises(CalendarError, match=r"and 1996-12-27T00:00Z lies outside"):
        calendar.check_covers(ms("1996-12-27"))
    with pytest.raises(CalendarError, match=r"and 2996-12-27 lies outside"):
        calendar.session_on(dt.date(2996, 12, 27))
    assert calendar.session_on(dt.date(1997, 1, 12)) is None, "a Sunday that it covers"
    calendar.check_covers(ms("1997-01-12"))
    SessionCalendar.of("24x7").check_covers(0)


def test_a_calendar_is_made_once() -> None:
    assert SessionCalendar.of("XNYS") is SessionCalendar.of("XNYS")


def test_an_unknown_calendar_is_refused_with_what_to_use() -> None:
    with pytest.raises(CalendarError, match=r"'NOPE' is none of '24x7', 'FX' and the exchange calendars; use .*XNYS"):
        SessionCalendar.of("NOPE")


def test_a_horizon_of_99_weeks_ends_though_the_calendar_ends_before() -> None:
    calendar = SessionCalendar.of("XNYS")
    last_ms = calendar.next_closes("1w", int(calendar._closes[-1]) - 60 * 7 * DAY, 1)[0]
    with pytest.raises(CalendarError):
        calendar.next_closes("1w", last_ms, 99)
    end_ms = calendar.nth_close("1w", last_ms, 99)
    assert abs(end_ms - last_ms - 99 * 7 * DAY) <= 2 * DAY
    ends = [calendar.nth_close("1d", last_ms, count) for count in range(1, 500)]
    assert all(a < b for a, b in pairwise(ends))
    assert ends[:50] == calendar.next_closes("1d", last_ms, 50)
