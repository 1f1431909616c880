"""Bars on one scale: what splits, dividends and price jumps without a split do to closes and baselines."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from schemas import Dividend, InstrumentEvent, RunMode
from services.scoring.report import ReportBar
from services.scoring.report.baselines import buy_and_hold
from services.scoring.report.prices import Bars, Prices
from tests.unit.scoring.report.market import HOUR_MS, START_MS, hourly

SYMBOL = "A.X1"


def paid(hour: int, amount: float) -> Dividend:
    at_ms = START_MS + hour * HOUR_MS
    return Dividend(schema_version=1, run_mode=RunMode.DEMO, symbol=SYMBOL, event="dividend", amount=amount, effective_ms=at_ms)


def split(hour: int, ratio: float) -> InstrumentEvent:
    at_ms = START_MS + hour * HOUR_MS
    return InstrumentEvent(schema_version=1, run_mode=RunMode.DEMO, symbol=SYMBOL, event="split", ratio=ratio, effective_ms=at_ms)


def bars_of(prices: Prices, interval: str = "1h") -> Bars:
    found = prices.bars(SYMBOL, interval)
    assert found is not None
    return found


def gapped(*closes: float) -> list[ReportBar]:
    """Return hourly bars each of which opens at its own close, so that jumps lie between bars."""
    return [replace(bar, open=bar.close, high=bar.close, low=bar.close) for bar in hourly(SYMBOL, closes)]


def test_holding_counts_the_dividends_that_returns_count() -> None:
    bars = {SYMBOL: gapped(100.0, 98.0, 98.0, 49.0)}  # 2 paid before the second close, and 1.96 before the last: 4 % of 49
    held = buy_and_hold(Prices(bars, [paid(0, 2.0), paid(2, 1.96), split(2, 2.0)]), 0.0, START_MS, START_MS + 3 * HOUR_MS)
    assert held is not None
    assert held.by_symbol[SYMBOL] == pytest.approx(98 / 98 * 49 / (49 - 1.96) - 1)


def test_a_dividend_before_the_first_bar_or_of_all_of_the_price_restates_nothing() -> None:
    prices = Prices({SYMBOL: gapped(100.0, 98.0)}, [paid(-1, 2.0), paid(0, 100.0)])
    assert bars_of(prices).close.tolist() == [100.0, 98.0]


def test_an_entry_before_a_dividend_is_restated_with_the_closes() -> None:
    prices = Prices({SYMBOL: gapped(100.0, 98.0)}, [paid(0, 2.0)])
    entries = prices.adjusted(SYMBOL, np.array([100.0, 98.0]), np.array([98.0, 98.0]), np.array([START_MS, START_MS + HOUR_MS]))
    assert entries == pytest.approx([98.0, 98.0])


@pytest.mark.parametrize("ratio", [10.0, 0.1])
def test_a_price_jump_without_a_split_is_taken_as_a_split_of_its_ratio(ratio: float) -> None:
    jumped = [1000.0, 1010.0, *(price / ratio for price in (1010.0, 1020.0))]
    suspected = Prices({SYMBOL: gapped(*jumped)}, (), 1.8)
    known = Prices({SYMBOL: gapped(*jumped)}, [split(1, ratio)], 1.8)
    assert bars_of(suspected).close == pytest.approx(bars_of(known).close)
    assert (suspected.suspected, known.suspected) == ({SYMBOL: [START_MS + HOUR_MS]}, {})
    held = buy_and_hold(suspected, 0.0, START_MS, START_MS + 3 * HOUR_MS)
    assert held is not None
    assert held.by_symbol[SYMBOL] == pytest.approx(0.02)


def test_a_bar_that_opens_before_a_jump_and_closes_after_it_has_only_its_close() -> None:
    bars = bars_of(Prices({SYMBOL: hourly(SYMBOL, [1000.0, 1010.0, 101.0, 102.0])}, (), 1.8))
    assert bars.close.tolist() == pytest.approx([100.0, 101.0, 101.0, 102.0])
    assert [bars.open[2], bars.high[2], bars.low[2]] == pytest.approx([101.0] * 3)
    assert [bars.open[3], bars.high[3], bars.low[3]] == pytest.approx([101.0, 102.0, 101.0])


def test_a_jump_seen_in_the_finest_bars_restates_the_slower_ones() -> None:
    slow = [
        ReportBar(SYMBOL, "2h", START_MS - HOUR_MS, START_MS + HOUR_MS, 1000.0, 1010.0, 1000.0, 1010.0),
        ReportBar(SYMBOL, "2h", START_MS + HOUR_MS, START_MS + 3 * HOUR_MS, 1010.0, 1015.0, 101.0, 102.0),
    ]
    fine = gapped(1000.0, 1010.0, 1015.0, 102.0)
    bars = bars_of(Prices({SYMBOL: [*slow, *fine]}, (), 1.8), "2h")
    assert bars.close.tolist() == pytest.approx([1010.0 * 102 / 1015, 102.0])
    assert [bars.open[1], bars.high[1], bars.low[1]] == [102.0] * 3


def test_a_move_within_the_limit_stays_a_move() -> None:
    prices = Prices({SYMBOL: gapped(100.0, 60.0, 100.0)}, (), 1.8)
    assert bars_of(prices).close.tolist() == [100.0, 60.0, 100.0]
    assert not prices.suspected
