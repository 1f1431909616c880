"""Random traders, against a few lines that do the same the slow way, and the claim that luck is not taken for skill."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import SignalOutcome
from services.scoring.report import ReportBar
from services.scoring.report.baselines import buy_and_hold, random_traders
from services.scoring.report.model import Random
from services.scoring.report.prices import Prices
from services.scoring.report.random_orders import LEAST_BARS
from services.scoring.report.trades import trades_of
from tests.unit.scoring.report.market import HOUR_MS, START_MS, hourly, outcome

CLOSES = 25
COST = 4e-4


def bars_of(symbol: str, seed: int, closes: int = CLOSES) -> list[ReportBar]:
    path = 100 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0, 0.02, closes)))
    return hourly(symbol, path.tolist())


def against(outcomes: list[SignalOutcome], bars: dict[str, list[ReportBar]], traders: int = 1_000) -> Random | None:
    end_ms = START_MS + (CLOSES - 1) * HOUR_MS
    return random_traders(outcomes, trades_of(outcomes), Prices(bars, ()), START_MS, end_ms, block=1, seed=1, traders=traders)


@st.composite
def positions(draw: st.DrawFn) -> list[SignalOutcome]:
    found = []
    for number in range(draw(st.integers(1, 8))):
        first, held = draw(st.integers(0, CLOSES - 1)), draw(st.integers(1, 60))
        found.append(
            outcome(
                number=number,
                symbol=draw(st.sampled_from(["A.X1", "B.X1"])),
                long=draw(st.booleans()),
                entry_ms=START_MS + first * HOUR_MS,
                exit_ms=START_MS + (first + held) * HOUR_MS,
                bars_held=held,
            )
        )
    return found


@given(positions())
@settings(max_examples=50, deadline=None)
def test_moving_all_positions_along_is_what_it_says(outcomes: list[SignalOutcome]) -> None:
    bars = {symbol: bars_of(symbol, seed) for seed, symbol in enumerate(("A.X1", "B.X1"))}
    moves = {symbol: [1.0, *(after.close / before.close for before, after in itertools.pairwise(of))] for symbol, of in bars.items()}
    expected = []
    for by in range(1, CLOSES):
        made = []
        for one in outcomes:
            first = ((one.ts_entry_ms or 0) - START_MS) // HOUR_MS
            ratio = 1.0
            for step in range(1, one.bars_held + 1):
                ratio *= moves[one.symbol][(first + by + step) % CLOSES]
            made.append((ratio - 1 if one.action.value == "buy" else 1 - ratio) - COST / 2 * (1 + ratio))
        expected.append(sum(made) / len(made))
    found = against(outcomes, bars)
    assert found is not None
    assert found.positions == len(outcomes)
    assert sorted(expected) == pytest.approx(list(found.kinds[0].means), abs=1e-9)


def test_traders_with_a_coin_make_nothing_but_their_costs_on_average() -> None:
    bars = {"A.X1": hourly("A.X1", [100 * 1.01**at for at in range(CLOSES)])}
    found = against([outcome(number=number, symbol="A.X1", entry_ms=START_MS + number * HOUR_MS) for number in range(9)], bars)
    assert found is not None
    always, coin = found.kinds
    assert always.mean == pytest.approx(1.01**4 - 1 - COST, abs=0.002), "every moment of a steady rise is as good as any other"
    assert coin.mean == pytest.approx(-COST, abs=0.002)


def test_positions_without_enough_bars_stand_aside_and_are_not_counted() -> None:
    bars = {"A.X1": bars_of("A.X1", 1), "B.X1": bars_of("B.X1", 2, LEAST_BARS)}
    both = [
        outcome(number=1, symbol="A.X1", net=0.01),
        outcome(number=2, symbol="B.X1", net=0.5),
        outcome(number=3, symbol="C.X1", net=0.5),
    ]
    found = against(both, bars)
    assert found is not None
    assert (found.positions, found.strategy) == (1, 0.01)
    assert against(both[1:], bars) is None


def test_no_more_traders_are_asked_than_there_are_stretches_to_move_by() -> None:
    bars = {"A.X1": bars_of("A.X1", 1)}
    found = against([outcome(symbol="A.X1")], bars)
    fewer = against([outcome(symbol="A.X1")], bars, traders=10)
    assert found is not None
    assert fewer is not None
    assert [len(kind.means) for kind in found.kinds] == [CLOSES - 1, 1_000]
    assert [len(kind.means) for kind in fewer.kinds] == [10, 10]


def test_holding_cuts_the_capital_in_equal_parts_and_pays_its_costs() -> None:
    bars = {
        "A.X1": hourly("A.X1", [10.0, 20.0]),
        "B.X1": hourly("B.X1", [10.0, 5.0]),
    }
    held = buy_and_hold(Prices(bars, ()), COST, START_MS, START_MS + HOUR_MS)
    assert held is not None
    assert held.by_symbol == pytest.approx({"A.X1": 1 - COST, "B.X1": -0.5 - COST})
    assert held.curve.final == pytest.approx(0.25 - COST)
    assert buy_and_hold(Prices(bars, ()), COST, START_MS, START_MS) is None
