"""The lines and numbers that bars show."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.calendar import SessionCalendar
from services.fusion.prompt.lines import bar_line, basis_points, compact, lines_before, lines_from
from services.fusion.prompt.wording import GAP_LINE
from services.fusion.state.book import Book
from tests.unit.fusion import build
from tests.unit.fusion.build import MINUTE, bar, instrument


def test_gap_lines_stand_for_scheduled_slots_that_are_missing() -> None:
    using = build.settings().fusion
    book = Book(instrument(), using, SessionCalendar.of("24x7"))
    for slot in (0, 1, 4, 5):
        book.fold_market(bar(slot))
    bars = book.bars["1m"]
    lines = lines_from(bars, 0, 2)
    assert [line == GAP_LINE for line in lines] == [False, False, True, True, False, False]
    assert lines_before(bars, 4, 3, 2) == lines[-3:]


@given(
    prices=st.tuples(*[st.floats(0, 1e12, exclude_min=True, exclude_max=True)] * 4),
    volume=st.floats(0, 1e18),
    rsi=st.floats(allow_nan=False, allow_infinity=False),
    at_ms=st.integers(1, 32_503_680_000_000),
    decimals=st.integers(0, 12),
)
def test_every_lawful_bar_has_a_line(
    prices: tuple[float, float, float, float], volume: float, rsi: float, at_ms: int, decimals: int
) -> None:
    line = bar_line(at_ms, MINUTE, *prices, volume, rsi, decimals)
    assert line.endswith("\n")
    assert line.count("\n") == 1
    assert line.isascii()
    assert abs(basis_points(prices[0], prices[3])) <= 9_999


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "00e0"), (0.4, "00e0"), (7, "07e0"), (99.4, "99e0"), (99.6, "10e1"), (12_345_678, "12e6"), (999_999, "10e5"), (1e17, "10e16")],
)
def test_counts_show_two_digits_and_a_power(value: float, shown: str) -> None:
    assert compact(value) == shown


@given(st.floats(100, 1e18))
def test_counts_are_right_to_half_a_digit(value: float) -> None:
    mantissa, power = compact(value).split("e")
    assert math.isclose(int(mantissa) * 10.0 ** int(power), value, rel_tol=0.051)
