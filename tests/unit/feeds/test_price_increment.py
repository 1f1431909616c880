"""The price increment is what prices are on, and one that makes different prices alike is refused with the one that would not."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import Candle
from services.feeds.price_increment import check_increment, infer_increment
from tests.unit.market.build import MINUTE, MODE, MONDAY, SYMBOL


def bars(prices: Sequence[float]) -> list[Candle]:
    """Return bars that each open at one of the prices and close at the next."""
    return [
        Candle(
            schema_version=1,
            run_mode=MODE,
            symbol=SYMBOL,
            interval="1m",
            ts_open_ms=MONDAY + at * MINUTE,
            ts_close_ms=MONDAY + (at + 1) * MINUTE,
            open=first,
            high=max(first, last),
            low=min(first, last),
            close=last,
            volume=1.0,
            closed=True,
        )
        for at, (first, last) in enumerate(itertools.pairwise(prices))
    ]


def walk(start: int, step: str, count: int = 300, size: int = 1) -> list[float]:
    """Return a walk of whole steps, each number as its decimal text would be read."""
    rng = random.Random(1)  # noqa: S311
    at, digits, out = start, len(step.partition(".")[2]), []
    for _ in range(count):
        at += size * rng.randint(-9, 9)
        out.append(float(f"{at * float(step):.{digits}f}"))
    return out


@pytest.mark.parametrize(
    ("start", "step", "size", "increment"),
    [
        (1712, "0.00000001", 1, "0.00000001"),
        (107120, "0.00001", 1, "0.00001"),
        (18715, "0.01", 1, "0.01"),
        (62900000, "0.01", 1, "0.01"),
        (4819, "1", 1, "1"),
        (481900, "0.01", 25, "0.25"),
        (15100, "0.01", 5, "0.05"),
        (11003125, "0.00001", 3125, "0.03125"),
        (151, "0.001", 1, "0.001"),
    ],
)
def test_the_increment_is_that_of_the_prices(start: int, step: str, size: int, increment: str) -> None:
    found = infer_increment(bars(walk(start, step, size=size)))
    assert (found.text, found.exact) == (increment, True)


def test_prices_that_were_32_bit_floats_are_on_the_tick_that_they_were_on_before() -> None:
    assert infer_increment(bars([187.149994, 188.440002, 183.889999, 185.639999])).text == "0.01"


def test_adjusted_prices_are_on_no_tick_and_get_one_that_tells_them_apart() -> None:
    found = infer_increment(bars([price * 0.98347261 for price in walk(18715, "0.01")]))
    assert (found.text, found.exact) == ("0.001", False)
    check_increment(bars([price * 0.98347261 for price in walk(18715, "0.01", size=20)]), "0.01")


def test_few_prices_of_one_and_more_are_on_a_cent_at_most() -> None:
    assert infer_increment(bars([10.0, 10.5, 11.0])).text == "0.01"


@pytest.mark.parametrize(
    ("start", "step", "given_", "fits"), [(1712, "0.00000001", "0.01", "0.00000001"), (107120, "0.00001", "0.01", "0.00001")]
)
def test_an_increment_that_does_not_fit_is_refused_with_the_one_that_does(start: int, step: str, given_: str, fits: str) -> None:
    with pytest.raises(
        ValueError, match=rf"{given_} does not fit: \d+ of \d+ prices are not multiples of it, such as [0-9.]+; use {fits}$"
    ):
        check_increment(bars(walk(start, step)), given_)


@pytest.mark.parametrize("text", ["cents", "0", "-0.01", "nan", "inf"])
def test_an_increment_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a decimal number|is not above 0"):
        check_increment(bars([1.0, 2.0]), text)


@given(st.integers(0, 8), st.lists(st.integers(1, 900_000), min_size=3, max_size=50))
def test_what_is_found_fits_and_so_does_everything_that_divides_it(digits: int, steps: list[int]) -> None:
    prices = bars([float(f"{step * 10.0**-digits:.{digits}f}") for step in steps])
    found = infer_increment(prices).text
    check_increment(prices, found)
    check_increment(prices, f"{float(found) / 10:.12f}")
