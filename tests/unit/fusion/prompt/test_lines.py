"""The lines and numbers that bars show."""

from __future__ import annotations

import math
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.calendar import SessionCalendar
from services.fusion.prompt.lines import Rows, Shown, bar_row, clock_label, compact, digits_for, offset
from services.fusion.prompt.wording import GAP_ROW
from services.fusion.state.book import Book
from services.strategy.folder import shipped
from tests.unit.fusion import build
from tests.unit.fusion.build import SYMBOL, bar, bar_at, instrument, record
from tests.unit.fusion.log import Folder


def test_gap_rows_stand_for_scheduled_slots_that_are_missing() -> None:
    using = build.settings().fusion
    book = Book(instrument(), using, SessionCalendar.of("24x7"))
    for slot in (0, 1, 4, 5):
        book.fold_market(bar(slot))
    rows = [row for at in range(4) for row in Rows(book, "1m", 0).at(at)]
    assert [row == GAP_ROW for row in rows] == [False, False, True, True, False, False]
    assert Rows(book, "1m", 0).before(4, 3) == rows[-3:]


@given(
    prices=st.tuples(*[st.floats(0, 1e12, exclude_min=True, exclude_max=True)] * 4),
    volume=st.floats(0, 1e18),
    rsi=st.floats(allow_nan=False, allow_infinity=False),
    at_ms=st.integers(1, 32_503_680_000_000),
    places=st.tuples(st.integers(0, 12), st.integers(0, 2)),
)
def test_every_lawful_bar_has_a_row(
    prices: tuple[float, float, float, float], volume: float, rsi: float, at_ms: int, places: tuple[int, int]
) -> None:
    decimals, digits = places
    shown = Shown(*prices, volume, {"rsi": rsi})
    row = bar_row(shipped().columns, clock_label(at_ms, "1m", "Asia/Tokyo"), shown, decimals=decimals, digits=digits)
    assert "\n" not in row
    assert row.isascii()
    assert len(row.split()) == 7
    assert abs(offset(prices[0], prices[3], digits)) <= 9_999


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "00e0"),
        (0.4, "40e-2"),
        (0.0371, "37e-3"),
        (7, "70e-1"),
        (5e-324, "49e-325"),
        (99.4, "99e0"),
        (99.6, "10e1"),
        (12_345_678, "12e6"),
        (999_999, "10e5"),
        (1e17, "10e16"),
    ],
)
def test_counts_show_two_digits_and_a_power(value: float, shown: str) -> None:
    assert compact(value) == shown


@given(st.floats(1e-300, 1e18))
def test_counts_are_right_to_half_a_digit(value: float) -> None:
    mantissa, power = compact(value).split("e")
    assert math.isclose(int(mantissa) * 10.0 ** int(power), value, rel_tol=0.051)


def rows_of(calendar: str, interval: str, closes: list[int], length_ms: int = 0) -> list[str]:
    """Return the rows of bars with these closes."""
    clock = SessionCalendar.of(calendar)
    held = Book(instrument(calendar=calendar), build.settings(intervals=[interval]).fusion, clock)
    for close_ms in closes:
        bounds = clock.bar_bounds(interval, close_ms - 1)
        assert bounds is not None
        held.fold_market(bar_at(bounds[0], interval=interval, length_ms=length_ms or bounds[1] - bounds[0]))
    return [row for at in range(len(closes)) for row in Rows(held, interval, 0).at(at)]


def labels(rows: list[str]) -> list[str]:
    """Return what rows begin with: their label, or all of a row between bars."""
    return [line if line.startswith("--") else line.split()[0] for row in rows for line in row.splitlines()]


def at_ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def test_a_day_begins_with_a_row_of_its_own_in_the_exchanges_zone() -> None:
    closes = SessionCalendar.of("XNYS").next_closes("1h", at_ms("2024-07-03T16:30Z"), 4)
    assert labels(rows_of("XNYS", "1h", closes)) == ["1300", "-- Fri 2024-07-05", "1030", "1130", "1230"]


def test_lunch_is_a_break_and_no_missing_bar() -> None:
    closes = SessionCalendar.of("XTKS").next_closes("5m", at_ms("2024-07-03T11:20+09:00"), 4)
    assert labels(rows_of("XTKS", "5m", closes)) == ["1125", "1130", "-- break", "1235", "1240"]


def test_a_missing_bar_after_lunch_is_missing() -> None:
    closes = SessionCalendar.of("XTKS").next_closes("5m", at_ms("2024-07-03T11:25+09:00"), 3)
    assert labels(rows_of("XTKS", "5m", [closes[0], closes[2]])) == ["1130", "-- no bar", "1240"]


def test_half_days_say_when_they_closed_and_a_year_begins_with_a_row() -> None:
    closes = SessionCalendar.of("XNYS").next_closes("1d", at_ms("2024-12-23T12:00Z"), 7)
    rows = rows_of("XNYS", "1d", closes)
    assert labels(rows) == ["1223", "1224", "1226", "1227", "1230", "1231", "-- 2025", "0102"]
    assert [row.strip().partition(" until ")[2] for row in rows] == ["", "13:00", "", "", "", "", ""]


def test_bars_of_half_a_day_and_of_seconds_say_their_time() -> None:
    start = at_ms("2024-07-03T00:00Z")
    assert labels(rows_of("24x7", "12h", [start + 12 * 3_600_000, start + 24 * 3_600_000])) == ["1200", "0000"]
    assert labels(rows_of("24x7", "30s", [start + 30_000, start + 60_000])) == ["000030", "000100"]


@pytest.mark.parametrize(("range_bp", "digits"), [(None, 0), (0.0, 0), (150.0, 0), (20.0, 0), (19.9, 1), (2.0, 1), (1.9, 2), (0.01, 2)])
def test_small_bars_have_more_digits(range_bp: float | None, digits: int) -> None:
    assert digits_for(range_bp) == digits


def test_digits_change_with_the_epoch_and_all_rows_with_them() -> None:
    using = build.settings(window_bars=16, epoch_slots=8)
    folder = Folder(using, instruments=[instrument()])
    headings = set()
    for slot in range(120):
        wide = bar(slot)
        narrow = wide.model_copy(update={"high": 100.005, "low": 99.995})
        folder.feed([record(slot, narrow if slot >= 40 else wide)])
        pieces = [
            block.piece for block in folder.prompts.plan(folder.book(SYMBOL), "1m", "fast").prefix.blocks if isinstance(block.piece, str)
        ]
        (heading,) = [piece for piece in pieces if piece.startswith("1m bars")]
        rows = "".join(pieces[pieces.index(heading) + 1 :]).splitlines()
        headings.add(heading)
        unit = 50 if "in basis points" in heading else 5_000
        assert {row.split()[3] for row in rows[:1] if slot < 40} <= {f"{unit:+05d}"}
    assert headings == {"1m bars, distances in basis points:\n", "1m bars, distances in hundredths of a basis point:\n"}
