"""Calendars: sessions and bars as an exchange keeps them, against plain enumeration."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.core.calendar import CalendarError, SessionCalendar

MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
INTERVALS = ["1m", "5m", "15m", "1h", "4h", "7h", "1d", "2d", "1w", "2w"]


def ms(text: str) -> int:
    return round(dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC).timestamp() * 1_000)


@st.composite
def calendars(draw: st.DrawFn) -> SessionCalendar:
    """Sessions of whole minutes on some days of ten weeks, never overlapping."""
    first = draw(st.integers(10_000, 10_013))
    days = [first + number for number in range(70) if draw(st.booleans())] or [first]
    spans = [sorted(draw(st.lists(st.integers(0, 1_440), min_size=2, max_size=2, unique=True))) for _ in days]
    opens = [day * DAY + span[0] * MINUTE for day, span in zip(days, spans, strict=True)]
    closes = [day * DAY + span[1] * MINUTE for day, span in zip(days, spans, strict=True)]
    return SessionCalendar("TEST", *(np.array(values, dtype=np.int64) for values in (days, opens, closes)))


def all_bars(calendar: SessionCalendar, interval: str) -> list[tuple[int, int]]:
    """Every scheduled bar, found by walking each session from bar to bar."""
    bars: list[tuple[int, int]] = []
    for opens, closes in zip(calendar._opens.tolist(), calendar._closes.tolist(), strict=True):
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
    with pytest.raises(CalendarError, match="is known until"):
        calendar.next_closes(interval, after, len(coming) + 1)


@settings(max_examples=60, deadline=None)
@given(calendars(), st.integers(9_990 * DAY, 10_100 * DAY))
def test_a_moment_is_in_a_session_or_before_the_next_one(calendar: SessionCalendar, ts_ms: int) -> None:
    sessions = list(zip(calendar._opens.tolist(), calendar._closes.tolist(), strict=True))
    holding = [close for opens, close in sessions if opens <= ts_ms < close]
    assert calendar.is_open(ts_ms) == bool(holding)
    assert calendar.session_close_ms(ts_ms) == (holding[0] if holding else None)
    later = [opens for opens, _ in sessions if opens >= ts_ms]
    if later:
        assert calendar.next_open_ms(ts_ms) == later[0]
    else:
        with pytest.raises(CalendarError, match="known until"):
            calendar.next_open_ms(ts_ms)
    for interval in INTERVALS:
        bounds = calendar.bar_bounds(interval, ts_ms)
        assert (bounds is not None) == bool(holding)
        assert bounds is None or bounds[0] <= ts_ms < bounds[1]


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
    assert calendar.bar_bounds("1h", half_day) == (ms("2024-07-03T16:00"), ms("2024-07-03T17:00"))
    assert calendar.bar_bounds("4h", ms("2024-07-02T13:30")) == (ms("2024-07-02T13:30"), ms("2024-07-02T16:00"))
    assert calendar.bar_bounds("1d", half_day) == (ms("2024-07-03T13:30"), ms("2024-07-03T17:00"))
    assert calendar.bar_bounds("1w", half_day) == (ms("2024-07-01T13:30"), ms("2024-07-05T20:00"))
    assert calendar.session_on(dt.date(2024, 7, 4)) is None
    assert calendar.next_closes("1d", half_day, 2) == [ms("2024-07-03T17:00"), ms("2024-07-05T20:00")]
    assert calendar.next_open_ms(half_day) == ms("2024-07-05T13:30")
    assert calendar.slots_between("1m", ms("2024-07-03T13:30"), ms("2024-07-05T20:00")) == 210 + 390
    assert calendar.session_on(dt.date(2024, 1, 3)) == (ms("2024-01-03T14:30"), ms("2024-01-03T21:00"))


def test_calendars_reach_back_to_1990_or_their_own_start() -> None:
    assert SessionCalendar.of("XNYS").session_on(dt.date(1990, 1, 2)) is not None
    assert SessionCalendar.of("XTKS").session_on(dt.date(1997, 1, 6)) is not None


def test_a_calendar_is_made_once() -> None:
    assert SessionCalendar.of("XNYS") is SessionCalendar.of("XNYS")


def test_an_unknown_calendar_is_refused_with_what_to_use() -> None:
    with pytest.raises(CalendarError, match=r"'NOPE' is neither '24x7' nor an exchange calendar; use .*XNYS"):
        SessionCalendar.of("NOPE")
