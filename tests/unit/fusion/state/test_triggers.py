"""The trigger policy: which records are a reason to ask, over event time."""

from __future__ import annotations

import pytest

from services.fusion.state.triggers import LaneKey, Observation, TriggerIds, TriggerPolicy
from tests.unit.fusion import build
from tests.unit.fusion.build import MINUTE, START, SYMBOL

FAST = LaneKey(SYMBOL, "1m", "fast")


def observed(minute: int, price: float = 100.0, *, closed: bool = True, bar_range: float = 1.0, atr: float | None = 1.0) -> Observation:
    at_ms = START + minute * MINUTE
    return Observation(SYMBOL, "1m", at_ms, closed, minute, price, bar_range, atr, at_ms - MINUTE)


def test_triggers_keep_their_least_distance_in_event_time() -> None:
    policy = TriggerPolicy(build.settings(min_gap_ms=3 * MINUTE).fusion)
    made = [minute for minute in range(10) if policy.on_market(observed(minute))]
    assert made == [0, 3, 6, 9]
    policy.forget(SYMBOL)
    assert policy.on_market(observed(10)) == [("closed_bar", "fast")]


def test_a_move_triggers_when_it_is_as_many_average_ranges_as_the_setting_says() -> None:
    policy = TriggerPolicy(build.settings(trigger_on_move_atr=2.0).fusion)
    assert policy.on_market(observed(0, 150.0, closed=False)) == []
    policy.on_market(observed(0, 100.0))
    assert policy.on_market(observed(1, 101.9, closed=False)) == []
    assert policy.on_market(observed(1, 98.0, closed=False)) == [("move", "fast")]
    assert policy.on_market(observed(1, 98.5, closed=False)) == []
    assert policy.on_market(observed(1, 200.0, closed=False, atr=None)) == []
    policy.rescale(SYMBOL, START + 10 * MINUTE, 2.0)
    assert policy.on_market(observed(1, 49.0, closed=False)) == []


def test_deep_triggers_come_every_nth_slot_and_with_wide_bars() -> None:
    every = TriggerPolicy(build.settings(deep_every_bars=4, trigger_on_closed_bar=False).fusion)
    assert [minute for minute in range(9) if every.on_market(observed(minute))] == [0, 4, 8]
    wide = TriggerPolicy(build.settings(deep_on_move_atr=3.0).fusion)
    assert wide.on_market(observed(0, bar_range=2.9)) == [("closed_bar", "fast")]
    assert wide.on_market(observed(1, bar_range=3.0)) == [("closed_bar", "fast"), ("deep", "deep")]


def test_vision_features_trigger_unless_a_bar_waited_for_them() -> None:
    policy = TriggerPolicy(build.settings(trigger_on_vision=True).fusion)
    assert policy.on_vision(FAST, START, 100.0, START - MINUTE, completes_wait=True) == []
    assert policy.on_vision(FAST, START, 100.0, START - MINUTE, completes_wait=False) == [("vision", "fast")]
    assert policy.on_vision(FAST._replace(interval="1h"), START, 100.0, START - MINUTE, completes_wait=False) == []


def test_ids_tell_triggers_of_one_record_and_of_two_logs_apart() -> None:
    ids = {TriggerIds(log).of("t", 0, 1, kind) for log in ("a", "b") for kind in ("closed_bar", "deep")}
    assert len(ids) == 4
    assert TriggerIds("a").of("t", 0, 1, "deep") in ids


@pytest.mark.parametrize(
    "settings", [{}, {"deep_every_bars": 4}, {"deep_on_move_atr": 3.0}, {"trigger_on_closed_bar": False, "deep_every_bars": 3}]
)
def test_a_policy_that_remembers_nothing_makes_the_same_triggers_without_having_seen_the_bars_before(settings: dict[str, object]) -> None:
    whole, late = (TriggerPolicy(build.settings(**settings).fusion) for _ in range(2))
    assert not late.remembers
    for minute in range(40):
        bar = observed(minute, bar_range=1.0 + minute % 5)
        made = whole.on_market(bar)
        if minute >= 20:
            assert late.on_market(bar) == made


@pytest.mark.parametrize("settings", [{"min_gap_ms": 3 * MINUTE}, {"trigger_on_vision": True}, {"trigger_on_move_atr": 2.0}])
def test_a_policy_whose_triggers_depend_on_earlier_ones_says_so(settings: dict[str, object]) -> None:
    assert TriggerPolicy(build.settings(**settings).fusion).remembers
