"""Facts: as many digits as the price has, and no two that differ written alike."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.calendar import SessionCalendar
from services.fusion.prompt.facts import fact_texts, facts
from services.fusion.state.book import Book
from services.market import indicators
from services.strategy.folder import shipped
from tests.unit.fusion import build
from tests.unit.fusion.build import MINUTE, START, bar, bar_at, instrument
from tests.unit.fusion.prompt.golden import CASES, MARKETS, prompt

SHOWN = shipped().fact_of


def number(text: str) -> str:
    return text.partition("=")[2]


@given(
    decimals=st.integers(0, 12),
    ticks=st.integers(1, 10**7),
    apart=st.lists(st.integers(-50_000, 50_000), min_size=2, max_size=2, unique=True),
)
def test_no_two_levels_that_differ_are_written_alike(decimals: int, ticks: int, apart: list[int]) -> None:
    """Averages lie between ticks: they are told apart down to a ten-thousandth of one."""
    tick = 10.0**-decimals
    close = ticks * tick
    values = {"close": close, "ema_fast": close + apart[0] * tick / 10_000, "ema_slow": close + apart[1] * tick / 10_000}
    written = fact_texts(values, SHOWN, decimals, 0)
    levels = list(zip(values.values(), map(number, written), strict=True))
    assert all(one != other for (a, one), (b, other) in combinations(levels, 2) if a != b)
    assert number(written[0]) == f"{close:.{decimals}f}"


@given(decimals=st.integers(0, 8), value=st.floats(1e-12, 1e6), sign=st.sampled_from([1, -1]))
def test_a_distance_that_is_not_zero_is_never_written_as_zero(decimals: int, value: float, sign: int) -> None:
    (written,) = fact_texts({"macd_hist": sign * value}, SHOWN, decimals, 0)
    assert float(number(written)) == pytest.approx(sign * value, rel=0.06, abs=0.51 * 10.0**-decimals)
    assert float(number(written)) != 0


@pytest.mark.parametrize(
    ("values", "decimals", "written"),
    [
        ({"atr": 0.000000213}, 8, "atr=0.00000021"),
        ({"atr": 0.0}, 2, "atr=0.00"),
        ({"ema_fast": 1.04123, "ema_slow": 1.04119}, 5, "ema_fast=1.04123 ema_slow=1.04119"),
        ({"close": 1.04123, "ema_fast": 1.041231}, 5, "close=1.04123 ema_fast=1.041231"),
        ({"ret_1": 0.0000321, "ret_5": -0.0123}, 2, "ret_1=+0.3 ret_5=-123.0"),
        ({"rsi": 46.36, "bb_pos": 0.123, "volume_z": -1.006}, 2, "rsi=46.4 bb_pos=0.12 volume_z=-1.01"),
        ({"macd_hist": 1e300, "p_up": 0.5}, 2, "macd_hist=1.000e+300"),
    ],
)
def test_facts_as_they_are_written(values: dict[str, float], decimals: int, written: str) -> None:
    assert " ".join(fact_texts(values, SHOWN, decimals, 1)) == written


@pytest.mark.parametrize("name", MARKETS)
def test_no_two_facts_and_no_two_rows_of_a_market_are_written_alike(name: str) -> None:
    lines = prompt(MARKETS[name]).splitlines()
    (row,) = [line for line in lines if line.startswith("Facts: ")]
    written = [number(text) for text in row.split()[1:]]
    assert len(set(written)) == len(written)
    bars = [line for line in lines if line[:2].isdigit() or line[:2].isalpha()]
    assert len(set(bars)) == len(bars)


def test_the_days_change_is_since_the_last_close_of_the_day_before() -> None:
    book = Book(instrument(), build.settings(window_bars=300, epoch_slots=50).fusion, SessionCalendar.of("24x7"))
    for minute in range(-60, 10):
        book.fold_market(bar_at(START + minute * MINUTE, 100.0 + minute / 100))
    assert facts(book, "1m", book.current_vision("1m"))["day_change"] == pytest.approx(100.09 / 99.99 - 1)


def test_the_days_change_is_unknown_where_no_interval_reaches_back() -> None:
    book = Book(instrument(), build.settings().fusion, SessionCalendar.of("24x7"))
    book.fold_market(bar(0))
    assert "day_change" not in facts(book, "1m", book.current_vision("1m"))


def test_the_legend_names_the_lengths_that_the_market_service_has() -> None:
    rules = CASES["specimen"]()
    for text in (
        f"true range of {indicators.ATR_BARS} bars",
        f"over {indicators.EMA_FAST_BARS} and {indicators.EMA_SLOW_BARS} bars",
        f"average of that over {indicators.MACD_SIGNAL_BARS} bars",
        f"0 to 100 over {indicators.RSI_BARS} bars",
        f"Bollinger bands of {indicators.BOLLINGER_BARS} bars",
        f"both of the {indicators.VOLUME_BARS} bars before",
        f"change over 1 and {indicators.RETURN_BARS} bars",
    ):
        assert text in rules
