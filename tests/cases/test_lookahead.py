"""No bar is known before it ended, whatever its layout, interval, calendar and time zone.

Real bars are made first, each with the instants between which it gathered trades. A file of them in a layout's form is read, and no bar
may close before its trades ended, nor open later than they began, nor hold another bar's prices.
"""

from __future__ import annotations

import datetime as dt
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import interval_ms
from services.core.calendar import SessionCalendar
from services.feeds.files import read_candles
from tests.cases.layouts import options

CALENDARS: Final = ("24x7", "FX", "XNYS", "XTKS", "XHKG", "XSHG", "XLON", "XBOM", "XASX", "CMES")
DAY_MS: Final = 86_400_000
FIRST: Final = st.dates(dt.date(2023, 1, 1), dt.date(2025, 6, 30))


class Bar(NamedTuple):
    """A bar as it was: it opened, and its last trade was before `end_ms`."""

    open_ms: int
    end_ms: int
    price: float


def zone_of(calendar: str) -> dt.tzinfo:
    return ZoneInfo(SessionCalendar.of(calendar).zone)


def local(ms: int, zone: dt.tzinfo) -> dt.datetime:
    return dt.datetime.fromtimestamp(ms / 1_000, zone)


# How a layout writes the open of an intraday bar; the exchange's zone is given.
STAMPS: Final[dict[str, tuple[str, Callable[[int, dt.tzinfo], str]]]] = {
    "seconds": ("time", lambda ms, _: str(ms // 1_000)),
    "milliseconds": ("timestamp", lambda ms, _: str(ms)),
    "microseconds": ("open_time", lambda ms, _: str(ms * 1_000)),
    "nanoseconds": ("ts_event", lambda ms, _: str(ms * 1_000_000)),
    "ISO in UTC": ("timestamp", lambda ms, _: f"{local(ms, dt.UTC):%Y-%m-%dT%H:%M:%SZ}"),
    "ISO with an offset": ("Datetime", lambda ms, zone: local(ms, zone).isoformat(sep=" ")),
    "with a zone's name": ("date", lambda ms, zone: f"{local(ms, zone):%Y%m%d %H:%M:%S} {zone}"),
    "Dukascopy": ("Gmt time", lambda ms, _: f"{local(ms, dt.UTC):%d.%m.%Y %H:%M:%S}.000"),
    "naive in the exchange's zone": ("time", lambda ms, zone: f"{local(ms, zone):%Y-%m-%d %H:%M}"),
    "split": ("Date,Time", lambda ms, zone: f"{local(ms, zone):%Y%m%d,%H%M}"),
}
NAIVE: Final = ("naive in the exchange's zone", "split")


def read(header: str, rows: list[str], given_: dict[str, Any]) -> dict[float, tuple[int, int]]:
    """Return open and close by price, which is each bar's own, of a file with these rows."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.csv"
        path.write_text("\n".join([f"{header},open,high,low,close,volume", *rows]) + "\n")
        got = read_candles(path, options({"symbol": "A-B.X1", **given_}))
    return {bar.close: (bar.ts_open_ms, bar.ts_close_ms) for bar in got.candles}


def trading_spans(calendar: str, first: dt.date, days: int) -> list[tuple[int, int]]:
    """Return what trades without interruption in so many days: sessions, and the parts that a break makes of them."""
    known = SessionCalendar.of(calendar)
    spans = []
    for number in range(days):
        session = known.session_on(first + dt.timedelta(days=number))
        if session is None:
            continue
        at_ms, close_ms = session
        while at_ms < close_ms:
            end_ms = next((ms for ms in range(at_ms, close_ms, 300_000) if not known.is_open(ms)), close_ms)
            spans.append((at_ms, end_ms))
            at_ms = close_ms if end_ms == close_ms else known.next_open_ms(end_ms)
    return spans


def real_bars(calendar: str, interval: str, first: dt.date, anchor: str) -> list[Bar]:
    """Return bars of a few days as a provider makes them: counted from the session's open, or on the clock."""
    length, made = interval_ms(interval), []
    spans = trading_spans(calendar, first, 5)
    for open_ms, close_ms in spans:
        at_ms = open_ms if anchor == "session" else open_ms // length * length
        while at_ms < close_ms:
            end_ms = at_ms + length
            # Its trades end with the last span that it reaches into.
            traded = [min(end_ms, end) for begin, end in spans if begin < end_ms and end > at_ms]
            if anchor == "session":
                traded = [min(end_ms, close_ms)]
            made.append(Bar(at_ms, max(traded), 0.0))
            at_ms = end_ms
    unique = {bar.open_ms: bar for bar in made}
    return [bar._replace(price=10.0 + number) for number, bar in enumerate(sorted(unique.values()))]


@settings(max_examples=60, deadline=None)
@given(
    calendar=st.sampled_from(CALENDARS),
    interval=st.sampled_from(["1m", "5m", "15m", "1h", "2h", "4h"]),
    first=FIRST,
    stamp=st.sampled_from(sorted(STAMPS)),
    anchor=st.sampled_from(["session", "clock"]),
)
def test_an_intraday_bar_is_known_at_its_end_and_not_before(calendar: str, interval: str, first: dt.date, stamp: str, anchor: str) -> None:
    bars = real_bars(calendar, interval, first, anchor)[:300]
    if len(bars) < 3:
        return
    header, write = STAMPS[stamp]
    zone = zone_of(calendar)
    rows = [f"{write(bar.open_ms, zone)},{bar.price},{bar.price},{bar.price},{bar.price},1" for bar in bars]
    given_ = {"calendar": calendar, "interval": interval, **({"time_zone": str(zone)} if stamp in NAIVE else {})}
    known = read(header, rows, given_)
    assert set(known) == {bar.price for bar in bars}
    for bar in bars:
        open_ms, close_ms = known[bar.price]
        assert open_ms == bar.open_ms
        assert close_ms >= bar.end_ms, f"{calendar} {interval} {local(bar.open_ms, dt.UTC)}: known {bar.end_ms - close_ms} ms too early"


@settings(max_examples=40, deadline=None)
@given(calendar=st.sampled_from(CALENDARS), first=FIRST, stamp=st.sampled_from(sorted(STAMPS)))
def test_a_daily_bar_stamped_at_its_sessions_open_is_known_at_the_sessions_close(calendar: str, first: dt.date, stamp: str) -> None:
    known, zone = SessionCalendar.of(calendar), zone_of(calendar)
    sessions = [one for number in range(12) if (one := known.session_on(first + dt.timedelta(days=number))) is not None]
    header, write = STAMPS[stamp]
    rows = [f"{write(open_ms, zone)},{10 + at},{10 + at},{10 + at},{10 + at},1" for at, (open_ms, _) in enumerate(sessions)]
    given_ = {"calendar": calendar, "interval": "1d", **({"time_zone": str(zone)} if stamp in NAIVE else {})}
    assert [read(header, rows, given_)[10.0 + at] for at in range(len(sessions))] == sessions


@settings(max_examples=40, deadline=None)
@given(
    calendar=st.sampled_from(CALENDARS),
    first=FIRST,
    form=st.sampled_from(["%Y-%m-%d", "%Y%m%d", "%Y-%m-%d 00:00:00", "%d.%m.%Y", "%d-%b-%Y"]),
)
def test_a_date_is_the_session_of_that_date(calendar: str, first: dt.date, form: str) -> None:
    known = SessionCalendar.of(calendar)
    days = [day for number in range(12) if known.session_on(day := first + dt.timedelta(days=number)) is not None]
    rows = [f"{day:{form}},{10 + at},{10 + at},{10 + at},{10 + at},1" for at, day in enumerate(days)]
    got = read("Date", rows, {"calendar": calendar, "interval": "1d"})
    assert [got[10.0 + at] for at in range(len(days))] == [known.session_on(day) for day in days]


@settings(max_examples=40, deadline=None)
@given(
    calendar=st.sampled_from(CALENDARS),
    first=FIRST,
    clock=st.sampled_from(["UTC", "exchange"]),
    stamp=st.sampled_from(["seconds", "nanoseconds", "ISO in UTC", "ISO with an offset"]),
)
def test_a_day_of_a_clock_is_known_when_its_last_session_in_it_ended(calendar: str, first: dt.date, clock: str, stamp: str) -> None:
    known, home = SessionCalendar.of(calendar), zone_of(calendar)
    zone = dt.UTC if clock == "UTC" else home
    header, write = STAMPS[stamp]
    midnights = [
        dt.datetime(day.year, day.month, day.day, tzinfo=zone) for day in (first + dt.timedelta(days=number) for number in range(12))
    ]
    spans = trading_spans(calendar, first - dt.timedelta(days=2), 17)
    days: list[Bar] = []
    for begin, end in pairwise(midnights):
        begin_ms, end_ms = round(begin.timestamp() * 1_000), round(end.timestamp() * 1_000)
        traded = [min(end_ms, close_ms) for open_ms, close_ms in spans if open_ms < end_ms and close_ms > begin_ms]
        if traded and (known.always_open or known.session_on(begin.date()) is not None):
            days.append(Bar(begin_ms, max(traded), 10.0 + len(days)))
    if len(days) < 3:
        return
    rows = [f"{write(day.open_ms, home)},{day.price},{day.price},{day.price},{day.price},1" for day in days]
    got = read(header, rows, {"calendar": calendar, "interval": "1d"})
    for day in days:
        assert got[day.price][1] >= day.end_ms


@pytest.mark.parametrize("hour", range(24))
def test_a_day_stamped_at_any_hour_of_a_market_that_never_closes_is_known_a_day_later(hour: int) -> None:
    begin_ms = round(dt.datetime(2024, 6, 3, hour, tzinfo=dt.UTC).timestamp() * 1_000)
    rows = [f"{begin_ms + at * DAY_MS},{10 + at},{10 + at},{10 + at},{10 + at},1" for at in range(5)]
    got = read("time", rows, {"interval": "1d"})
    assert [got[10.0 + at] for at in range(5)] == [(begin_ms + at * DAY_MS, begin_ms + (at + 1) * DAY_MS) for at in range(5)]
