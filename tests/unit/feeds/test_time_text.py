"""Times are read in every form that providers write, and numbers mean the moment that is plausible."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.feeds.time_text import ParsedTime, parse_times, with_clock
from tests.unit.market.build import ms

DATE = ParsedTime(ms("2024-01-02"), None, date_only=True)
NAIVE = ParsedTime(ms("2024-01-02T09:30"), None)
UTC = ParsedTime(ms("2024-01-02T09:30"), 0)
NEW_YORK = ParsedTime(ms("2024-01-02T09:30"), -5 * 3_600_000)


@pytest.mark.parametrize(
    ("cell", "moment"),
    [
        ("2024-01-02", DATE),
        ("20240102", DATE),
        (20240102, DATE),
        (20240102.0, DATE),
        ("2024/1/2", DATE),
        ("2024.01.02", DATE),
        ("02.01.2024", DATE),
        ("13/02/2024", ParsedTime(ms("2024-02-13"), None, date_only=True)),
        ("02/13/24", ParsedTime(ms("2024-02-13"), None, date_only=True)),
        ("02-Jan-2024", DATE),
        ("Jan 02, 2024", DATE),
        ("Tue, 2 Jan 2024", DATE),
        ("45293", DATE),
        (45293, DATE),
        (dt.date(2024, 1, 2), DATE),
        ("2024-01-02 09:30", NAIVE),
        ("2024-01-02 9:30 AM", NAIVE),
        ("2024-01-02T09:30:00.000000", NAIVE),
        ("20240102 093000", NAIVE),
        ("20240102  09:30:00", NAIVE),
        ("202401020930", NAIVE),
        ("20240102093000", NAIVE),
        ("02.01.2024 09:30:00.000", NAIVE),
        ("45293.395833333336", NAIVE),
        (dt.datetime(2024, 1, 2, 9, 30), NAIVE),  # noqa: DTZ001 - as Parquet has it
        ("2024-01-02T09:30:00Z", UTC),
        ("2024-01-02 09:30:00+00:00", UTC),
        ("2024-01-02T09:30:00.000000000Z", UTC),
        ("2024-01-02 09:30:00 UTC", UTC),
        ("20240102T093000Z", UTC),
        ("1704187800", UTC),
        (1704187800.0, UTC),
        ("1704187800000", UTC),
        ("1704187800000000", UTC),
        (1704187800000000000, UTC),
        ("2024-01-02 09:30:00-05:00", NEW_YORK),
        ("2024-01-02 09:30:00-0500", NEW_YORK),
        ("20240102 09:30:00 US/Eastern", NEW_YORK),
        ("2024-01-02 09:30:00 EST", NEW_YORK),
        ("02.01.2024 09:30:00.000 GMT-0500", NEW_YORK),
        ("63072000000", ParsedTime(ms("1972-01-01"), 0)),
    ],
)
def test_a_cell_says_its_moment(cell: object, moment: ParsedTime) -> None:
    assert parse_times([cell]) == [moment]


@pytest.mark.parametrize(
    ("cell", "problem"),
    [
        ("0", "is not a plausible time"),
        ("86400", "is not a plausible time"),
        ("99999999999999999999999", "is not a plausible time"),
        ("", "is empty"),
        (None, "is empty"),
        ("2024-13-02", "month must be in 1..12"),
        ("2024-01-02 25:00", "has an invalid time of day"),
        ("2024-01-02 09:30 Mars/Phobos", "is not known"),
        ("02-Foo-2024", "has no English month name"),
        ("01/02/2024", "may have the day or the month first"),
        ("tomorrow", "is not a time"),
        ("10:30", "is not a time"),
    ],
)
def test_a_cell_that_says_none_says_why(cell: object, problem: str) -> None:
    (said,) = parse_times([cell])
    assert isinstance(said, str)
    assert problem in said


def test_a_number_is_a_date_only_where_all_of_its_column_are() -> None:
    assert parse_times(["20240102", "20240103"]) == [DATE, ParsedTime(ms("2024-01-03"), None, date_only=True)]
    (said, _) = parse_times(["20240102", "20249999"])
    assert isinstance(said, str), "these are numbers, and no plausible seconds"


@pytest.mark.parametrize(
    ("times", "joined"),
    [
        (["930", "1000"], ["09:30", "10:00"]),
        (["0930", "1000"], ["09:30", "10:00"]),
        (["93000", "100000"], ["09:30:00", "10:00:00"]),
        (["34200000", "34260000"], ["09:30:00.000", "09:31:00.000"]),
        (["09:30", "10:00"], ["09:30", "10:00"]),
    ],
)
def test_a_column_of_times_is_joined_to_one_of_dates(times: list[str], joined: list[str]) -> None:
    assert with_clock(["20240102"] * 2, times) == [f"20240102 {time}" for time in joined]


@given(st.datetimes(dt.datetime(1971, 1, 2), dt.datetime(2099, 1, 1)), st.sampled_from([0, 3, 6, 9]))  # noqa: DTZ001 - UTC is added
def test_a_number_since_1970_is_one_moment_whatever_its_unit(at: dt.datetime, digits: int) -> None:
    seconds = int(at.replace(tzinfo=dt.UTC).timestamp())
    assert parse_times([seconds * 10**digits]) == [ParsedTime(seconds * 1_000, 0)]
