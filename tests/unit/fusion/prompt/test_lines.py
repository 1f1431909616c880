"""The lines and numbers that bars show."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.calendar import SessionCalendar
from services.fusion.prompt.lines import Rows, bar_row, clock_label, compact, offset
from services.fusion.prompt.wording import GAP_ROW
from services.fusion.state.book import Book
from tests.unit.fusion import build
from tests.unit.fusion.build import bar, instrument


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
    row = bar_row(clock_label(at_ms, "1m", "Asia/Tokyo"), prices, volume=volume, rsi=rsi, decimals=decimals, digits=digits)
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
