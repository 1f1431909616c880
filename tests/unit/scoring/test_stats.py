"""The tables over outcomes: figures worked out by hand, and the same whatever the order and however often outcomes come."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import ExitReason, SignalOutcome
from schemas.examples import EXAMPLES
from services.scoring.stats import Figures, Group, Row, Window, bucket_of, figures, parse_key, tabulate, window_key, window_start


def outcome(number: int, net: float | None, **fields: object) -> SignalOutcome:
    example = EXAMPLES[SignalOutcome]
    reason = ExitReason.UNFILLED if net is None else ExitReason.HORIZON
    return SignalOutcome.model_validate(
        example.model_dump() | {"signal_id": UUID(int=number), "return_net": net, "exit_reason": reason, **fields}
    )


def test_the_figures_of_a_group_are_those_worked_out_by_hand() -> None:
    nets = [0.02, -0.01, 0.005, None]
    found = figures(Row("buy", "llm", "fresh", conviction, net) for conviction, net in zip((0.6, 0.7, 0.8, 0.9), nets, strict=True))
    assert (found.signals, found.opened, found.hits) == (4, 3, 2)
    assert [found.hit_rate, found.expectancy, found.pnl, found.conviction] == pytest.approx([2 / 3, 0.005, 0.015, 0.7])


def test_a_group_in_which_nothing_was_opened_has_no_rates() -> None:
    assert figures([Row("buy", "llm", "fresh", 0.6, None)]) == Figures(1, 0, 0, None, None, 0.0, None)


def test_outcomes_are_grouped_by_symbol_action_source_vision_and_conviction() -> None:
    window = Window()
    changes: list[dict[str, object]] = [{}, {"action": "sell"}, {"source": "rules"}, {"vision": "stale"}, {"conviction": 0.3}]
    for number, fields in enumerate(changes):
        window.add(outcome(number, 0.01, **fields))
    assert set(tabulate([("AAA.XTST", window)])) == {
        Group("AAA.XTST", "buy", "llm", "fresh", 3),
        Group("AAA.XTST", "sell", "llm", "fresh", 3),
        Group("AAA.XTST", "buy", "rules", "fresh", 3),
        Group("AAA.XTST", "buy", "llm", "stale", 3),
        Group("AAA.XTST", "buy", "llm", "fresh", 1),
    }


@pytest.mark.parametrize(("conviction", "bucket"), [(0.0, 0), (0.19, 0), (0.2, 1), (0.6, 3), (0.99, 4), (1.0, 4)])
def test_a_bucket_begins_with_its_lower_edge(conviction: float, bucket: int) -> None:
    assert bucket_of(conviction) == bucket


def test_a_window_is_a_day_and_its_key_says_which() -> None:
    start_ms = window_start(1_719_835_200_000)
    assert start_ms == 1_719_792_000_000
    assert parse_key(window_key("BTC-USD.CBSE", start_ms)) == ("BTC-USD.CBSE", start_ms)


_nets = st.none() | st.floats(-1, 1, allow_nan=False)


@given(st.lists(st.tuples(st.integers(0, 9), _nets), max_size=40, unique_by=lambda one: one[0]), st.data())
def test_order_and_repetition_of_outcomes_change_nothing(drawn: list[tuple[int, float | None]], data: st.DataObject) -> None:
    plain, again = Window(), Window()
    for number, net in drawn:
        assert plain.add(outcome(number, net))
    for number, net in data.draw(st.permutations(drawn * 2)):
        again.add(outcome(number, net))
        again = Window.load(again.dump())
    assert plain.dump() == again.dump()
    assert tabulate([("A", plain)]) == tabulate([("A", again)])
