"""Equity over time and by position, against the same said slowly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import SignalOutcome
from services.scoring.report.equity import over_time, per_position
from services.scoring.report.prices import Prices
from services.scoring.report.statistics import peak_open
from services.scoring.report.trades import trades_of
from tests.unit.scoring.report.market import HOUR_MS, START_MS, hourly, outcome

HOURS = 12
COST = 4e-4
CLOSES = {
    "A.X1": [100.0, 103, 99, 120, 118, 90, 95, 97, 130, 128, 127, 140],
    "B.X1": [50.0, 49, 48, 47, 60, 61, 30, 31, 35, 34, 33, 36],
}
HALF_MS = HOUR_MS // 2


@st.composite
def positions(draw: st.DrawFn) -> list[SignalOutcome]:
    found = []
    for number in range(draw(st.integers(1, 8))):
        entry_ms = draw(st.integers(0, 2 * HOURS - 2)) * HALF_MS
        exit_ms = min(entry_ms + draw(st.integers(0, 12)) * HALF_MS, (HOURS - 1) * HOUR_MS)
        found.append(
            outcome(
                number=number,
                symbol=draw(st.sampled_from(["A.X1", "B.X1", "WITHOUT-BARS.X1"])),
                long=draw(st.booleans()),
                entry_ms=START_MS + entry_ms,
                exit_ms=START_MS + max(entry_ms, exit_ms),
                entry=draw(st.sampled_from([40.0, 100.0])),
                net=draw(st.floats(-0.5, 0.5)),
            )
        )
    return found


def worth(one: SignalOutcome, at_ms: int) -> float:
    """Return what the position has made by then."""
    if at_ms >= one.ts_exit_ms:
        return one.return_net or 0.0
    seen = [
        close
        for hour, close in enumerate(CLOSES.get(one.symbol, []))
        if (one.ts_entry_ms or 0) < START_MS + hour * HOUR_MS <= at_ms  # a close at the entry's instant was before it
    ]
    side = 1 if one.action.value == "buy" else -1
    return side * (seen[-1] / float(one.entry or 1) - 1) - COST if seen else 0.0


@given(positions())
@settings(deadline=None)
def test_equity_over_time_is_what_every_position_has_made_by_then(outcomes: list[SignalOutcome]) -> None:
    bars = {symbol: hourly(symbol, closes) for symbol, closes in CLOSES.items()}
    trades = trades_of(outcomes)
    found = over_time(trades, Prices(bars, ()), COST, START_MS, START_MS + (HOURS - 1) * HOUR_MS)
    slots = peak_open(trades.entry_ms, trades.exit_ms)
    assert list(found.values) == pytest.approx([sum(worth(one, at_ms) for one in outcomes) / slots for at_ms in found.at], abs=1e-9)
    assert {START_MS + hour * HOUR_MS for hour in range(HOURS)} | {one.ts_exit_ms for one in outcomes} == set(found.at)


@given(positions())
@settings(deadline=None)
def test_equity_by_position_adds_up_in_order_of_exit_and_falls_from_its_peak(outcomes: list[SignalOutcome]) -> None:
    found = per_position(trades_of(outcomes))
    assert found.at == tuple(range(len(outcomes) + 1))
    assert found.final == pytest.approx(sum(one.return_net or 0 for one in outcomes))
    for place, (value, fall) in enumerate(zip(found.values, found.drawdown, strict=True)):
        peak = max(1 + earlier for earlier in found.values[: place + 1])
        assert fall == pytest.approx((1 + value) / peak - 1)
    assert found.worst == min(found.drawdown) <= 0


def test_prices_after_a_split_are_marked_on_the_scale_of_the_entry() -> None:
    bars = {"A.X1": hourly("A.X1", [100.0 + hour for hour in range(4)])}
    for scale in (1.0, 2.0, 6.0):  # bought before none, the second and both of two splits
        trades = trades_of([outcome(symbol="A.X1", entry=100.0 * scale, exit_ms=START_MS + 3 * HOUR_MS, net=0.03)])
        prices = Prices(bars, ())
        prices._splits["A.X1"] = {START_MS + 2 * HOUR_MS: 2.0, START_MS + HOUR_MS: 3.0}
        found = over_time(trades, prices, 0.0, START_MS, START_MS + 3 * HOUR_MS)
        assert found.values == pytest.approx([0, 0.01, 0.02, 0.03])


def test_nothing_opened_is_a_flat_line() -> None:
    found = over_time(trades_of([]), Prices({}, ()), COST, START_MS, START_MS + HOUR_MS)
    assert (found.at, found.values) == ((START_MS, START_MS + HOUR_MS), (0.0, 0.0))
    assert per_position(trades_of([])).values == (0.0,)
    assert np.isfinite(found.worst)
