"""Traders without skill are not called skilled, whatever orders they place; `make luck` measures how often, on many more of them."""

from __future__ import annotations

import pytest

from benchmarks.luck import STOCKS, Row, judged
from services.scoring.report.model import Evidence

TRADERS = 4


@pytest.mark.parametrize(
    ("habit", "market"),
    [
        ("limit entries", "driftless"),
        ("near target and far stop", "driftless"),
        ("mixed", "volatile"),
        ("limit entries", STOCKS),
        ("one view kept for long, overlapping", "trending"),
    ],
)
def test_luck_is_not_called_skill_whatever_orders_it_places(habit: str, market: str) -> None:
    said = [judged(Row(habit, market), seed).evidence for seed in range(TRADERS)]
    assert said.count(Evidence.SKILL) <= 1, said
    assert Evidence.NOTHING not in said, "each has random traders beside it"


def test_knowing_the_way_in_two_of_five_signals_is_seen() -> None:
    said = [judged(Row("market entries", "driftless", 0.4), seed, bars=600).evidence for seed in range(2)]
    assert said == [Evidence.SKILL] * 2
