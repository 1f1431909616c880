"""What the console folds: decisions joined with their signals in any order, sums, bounds, and records that are not what they should be."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import Outcome, RunMode, Topic
from services.console.events import EventLog
from services.console.memory import BoundedMap
from services.console.recent import Recent
from services.core.bus import Record
from tests.unit.console.records import SYMBOL, audit, bar, cancel, record, signal, signal_id, trigger_id

MAX_BYTES = 10_000_000


def _recent(*records: Record, max_bytes: int = MAX_BYTES) -> tuple[Recent, EventLog]:
    events = EventLog()
    recent = Recent(RunMode.DEMO, max_bytes, 262_144, events)
    for one in records:
        recent.take(one)
    return recent, events


JOINED = [record(Topic.SIGNAL_AUDIT, audit(1)), record(Topic.STRATEGY_SIGNALS, signal(1)), record(Topic.STRATEGY_SIGNALS, cancel(1), 1)]


@given(st.permutations(JOINED))
def test_a_decision_is_joined_with_its_signal_and_its_cancel_in_whatever_order_they_come(records: list[Record]) -> None:
    recent, _ = _recent(*records)
    row = next(recent.decisions())
    assert (row.entry, row.stop, row.target, row.conviction) == ("100.10", "99.00", "102.00", 0.6)
    assert row.cancelled == "halted"
    assert row.total_ms == 300.0


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(list(Outcome))), max_size=12))
def test_sums_are_distinct_by_trigger_and_add_up(triggers: list[tuple[int, Outcome]]) -> None:
    recent, _ = _recent(*(record(Topic.SIGNAL_AUDIT, audit(number, outcome), at) for at, (number, outcome) in enumerate(triggers)))
    totals = recent.totals()
    assert totals.triggers == len({number for number, _ in triggers}) == sum(totals.outcomes.values())


def test_decisions_are_found_by_the_beginning_of_either_id() -> None:
    recent, _ = _recent(*(record(Topic.SIGNAL_AUDIT, audit(number), number) for number in range(5)))
    for wanted in (str(trigger_id(3)), str(signal_id(3)), str(trigger_id(3))[:10].upper(), f" {str(signal_id(3))[:12]}"):
        assert [one.row.trigger_id for one in recent.find(wanted)] == [str(trigger_id(3))]
    assert recent.find("ffffffffffff") == []


def test_the_first_body_of_a_signal_counts() -> None:
    recent, _ = _recent(record(Topic.STRATEGY_SIGNALS, signal(1)), record(Topic.STRATEGY_SIGNALS, signal(1, entry="1.00"), 1))
    held = recent.signal(signal_id(1))
    assert held is not None
    assert held.entry == "100.10"


def test_records_of_another_run_mode_are_not_this_ones_decisions() -> None:
    recent, _ = _recent(record(Topic.SIGNAL_AUDIT, audit(1, run_mode=RunMode.REPLAY)))
    assert recent.totals().triggers == 0


@pytest.mark.parametrize(
    "value",
    [
        b"not JSON",
        b"[]",
        b"\xff\xfe",
        orjson.dumps({"symbol": "<script>alert(1)</script>"}),
        audit(1).encode().replace(SYMBOL.encode(), b"<img src=x onerror=alert(1)>"),
        audit(1).encode() + b" " * 300_000,
    ],
)
def test_a_record_that_breaks_its_contract_is_shown_as_such_and_stops_nothing(value: bytes) -> None:
    recent, events = _recent(record(Topic.SIGNAL_AUDIT, value, 7), record(Topic.SIGNAL_AUDIT, audit(2), 8))
    assert recent.unreadable_count == 1
    assert recent.unreadable[0].where == "demo.signal-audit[0] offset 7"
    assert recent.unreadable[0].problem
    assert len(recent.unreadable[0].excerpt) <= 200
    assert recent.totals().triggers == 1
    assert [one.kind for one in events.after(0, "").events] == ["unreadable", "decision"]


@given(st.lists(st.integers(0, 20), max_size=40), st.integers(500, 10_000))
def test_a_map_holds_what_it_counts_and_no_more_than_it_may(keys: list[int], max_bytes: int) -> None:
    evicted: list[int] = []
    held: BoundedMap[int, bytes] = BoundedMap(max_bytes, lambda value: len(value) + 100, lambda key, _: evicted.append(key))
    for at, key in enumerate(keys):
        held.put(key, b"x" * (at * 13 % 500))
    assert held.held_bytes == sum(len(one) + 100 for one in held.values())
    assert len(held) <= 1 or held.held_bytes <= max_bytes
    assert set(keys) == {key for key in keys if key in held} | set(evicted)


def test_memory_is_bounded_however_many_records_come() -> None:
    limit = 524_288
    recent, _ = _recent(max_bytes=limit)
    for number in range(800):
        recent.take(record(Topic.SIGNAL_AUDIT, audit(number, answer="y" * 2_000), number))
        recent.take(record(Topic.STRATEGY_SIGNALS, signal(number), number))
        recent.take(record(Topic.MARKET_FEATURES, bar(number, f"COIN{number % 40}.CBSE"), number))
    assert recent.held_bytes <= limit
    assert recent.totals().triggers == 800
    assert 0 < recent.held_decisions < 800


def test_a_symbols_bars_are_in_order_the_newest_of_each_and_at_most_500() -> None:
    recent, _ = _recent(*(record(Topic.MARKET_FEATURES, bar(number), number) for number in range(600)))
    recent.take(record(Topic.MARKET_FEATURES, bar(599, revision=1, high=200.0), 601))
    bars = recent.bars(SYMBOL, "1m")
    assert len(bars) == 500
    assert [one.ts_close_ms for one in bars] == sorted(one.ts_close_ms for one in bars)
    assert bars[-1].high == 200.0
