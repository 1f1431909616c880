"""Lanes are fair, lose no trigger and give each exactly one end, over random schedules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from schemas import Mode
from services.fusion.decide.lanes import Ended, Lanes, Verdict
from services.fusion.state.triggers import LaneKey, Trigger
from tests.unit.fusion.build import START, trigger

PERMITS: dict[Mode, int] = {"fast": 2, "deep": 1}
STALE_MS = 500
SYMBOLS = [f"COIN{number}-USD.CBSE" for number in range(5)]
MODES: Sequence[Mode] = ("fast", "deep")


@dataclass
class Line:
    """A lane's place in the model."""

    trigger: Trigger
    order: int
    wait_until_ms: int
    rank: int | None = None
    """Among the ready lanes, from when it became ready."""
    passed_over: bool = False


class Schedule(RuleBasedStateMachine):
    """Lanes against a model: a dictionary of places in line and one of what runs."""

    def __init__(self) -> None:
        super().__init__()
        self.cold: set[str] = set()
        self.hopeless: set[str] = set()
        self.lanes = Lanes(dict(PERMITS), STALE_MS, lambda key: key.symbol in self.cold)
        self.now_ms = START
        self.offered = 0
        self.orders = 0
        self.line: dict[LaneKey, Line] = {}
        self.kept: dict[LaneKey, int] = {}
        self.running: dict[LaneKey, Trigger] = {}
        self.ends: dict[str, str] = {}

    def verdict(self, one: Trigger, passed_over: bool) -> Verdict:  # noqa: FBT001 - the lanes call it
        """Have what is hopeless wait for 300 ms."""
        assert passed_over == self.line[one.lane].passed_over
        if one.lane.symbol not in self.hopeless:
            return "ask"
        return "end" if passed_over and self.now_ms - one.origin.ts_ms > 300 else "wait"

    def line_up(self) -> None:
        """Give each lane that is ready now its rank: behind as many later ones as are busy when the engine lacks its prefix."""
        for key, line in self.line.items():
            if not line.wait_until_ms and key not in self.running and line.rank is None:
                line.rank = line.order + (len(self.line.keys() | self.running.keys()) if key.symbol in self.cold else 0)

    @rule(symbol=st.sampled_from(SYMBOLS), hopeless=st.booleans(), cold=st.booleans())
    def the_engine_changes(self, symbol: str, hopeless: bool, cold: bool) -> None:  # noqa: FBT001 - drawn
        (self.hopeless.add if hopeless else self.hopeless.discard)(symbol)
        (self.cold.add if cold else self.cold.discard)(symbol)

    def ended(self, one: Trigger, how: str) -> None:
        assert str(one.trigger_id) not in self.ends, "a second end"
        self.ends[str(one.trigger_id)] = how

    @rule(
        symbol=st.sampled_from(SYMBOLS),
        mode=st.sampled_from(MODES),
        wait_ms=st.sampled_from([0, 0, 50, 150]),
        age_ms=st.sampled_from([0, 400]),
    )
    def offer(self, symbol: str, mode: Mode, wait_ms: int, age_ms: int) -> None:
        self.offered += 1
        one = trigger(self.offered, symbol, mode=mode, ts_ms=self.now_ms - age_ms, window_end_ms=self.now_ms)
        until_ms = self.now_ms + wait_ms if wait_ms else 0
        gone = self.lanes.offer(one, self.now_ms, until_ms)
        held = self.line.get(one.lane)
        if held is None:
            assert gone is None
            self.line[one.lane] = Line(one, self.kept.pop(one.lane, self.orders), until_ms)
            self.orders += 1
            self.line_up()
            return
        assert gone == Ended(held.trigger, "conflated", "newer_trigger")
        self.ended(held.trigger, "conflated")
        held.trigger, held.wait_until_ms, held.passed_over = one, min(held.wait_until_ms, until_ms), False
        self.line_up()

    @rule(symbol=st.sampled_from(SYMBOLS), ago_ms=st.sampled_from([0, 100, 1_000]))
    def vision_arrives(self, symbol: str, ago_ms: int) -> None:
        end_ms = self.now_ms - ago_ms
        waiting = [
            line for key, line in self.line.items() if key.symbol == symbol and line.wait_until_ms and line.trigger.window_end_ms <= end_ms
        ]
        assert self.lanes.complete_wait(symbol, "1m", end_ms, self.now_ms) == bool(waiting)
        for line in waiting:
            line.wait_until_ms = 0
        self.line_up()

    @rule(passed_ms=st.integers(0, 300))
    def time_passes(self, passed_ms: int) -> None:
        self.now_ms += passed_ms

    @rule()
    def start(self) -> None:
        for line in self.line.values():
            if line.wait_until_ms <= self.now_ms:
                line.wait_until_ms = 0
        self.line_up()
        expected, unasked, passed_over = self.turns()
        started, ended = self.lanes.start_ready(self.now_ms, self.verdict)
        assert [one.trigger for one in started] == expected
        assert ended == unasked
        assert all(one.ready_ms <= self.now_ms for one in started)
        for line in passed_over:
            line.passed_over = True
        for one in expected:
            assert one.lane not in self.running
            del self.line[one.lane]
            self.running[one.lane] = one
        for gone in unasked:
            self.kept[gone.trigger.lane] = self.line.pop(gone.trigger.lane).order
            self.ended(gone.trigger, "stale")

    def turns(self) -> tuple[list[Trigger], list[Ended], list[Line]]:
        """Return what is asked now, what ends unasked, and what is passed over."""
        expected: list[Trigger] = []
        unasked: list[Ended] = []
        passed_over: list[Line] = []
        for mode in MODES:
            free = PERMITS[mode] - sum(key.mode == mode for key in self.running)
            ready = [key for key, line in self.line.items() if key.mode == mode and not line.wait_until_ms and key not in self.running]
            for key in sorted(ready, key=lambda key: (self.line[key].rank, key)):
                if not free:
                    break
                one = self.line[key].trigger
                verdict = self.verdict(one, self.line[key].passed_over)
                if self.now_ms - one.origin.ts_ms > STALE_MS:
                    unasked.append(Ended(one, "stale", "too_old"))
                elif verdict == "end":
                    unasked.append(Ended(one, "stale", "no_time"))
                elif verdict == "ask":
                    free -= 1
                    expected.append(one)
                else:
                    passed_over.append(self.line[key])
        return expected, unasked, passed_over

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        one = self.running.pop(data.draw(st.sampled_from(sorted(self.running))))
        self.lanes.finish(one)
        self.ended(one, "finished")
        self.line_up()

    @rule()
    def evict(self) -> None:
        gone = self.lanes.evict_oldest()
        if not self.line:
            assert gone is None
            return
        key = min(self.line, key=lambda key: self.line[key].order)
        assert gone == Ended(self.line.pop(key).trigger, "stale", "backlog")
        self.ended(gone.trigger, "stale")

    @rule(symbol=st.sampled_from(SYMBOLS))
    def revoke(self, symbol: str) -> None:
        dropped = self.lanes.drop(lambda one: one.lane.symbol == symbol)
        gone = [key for key in self.line if key.symbol == symbol]
        assert {one.lane for one in dropped} == set(gone)
        for key in gone:
            self.ended(self.line.pop(key).trigger, "dropped")

    @invariant()
    def every_trigger_is_in_one_place(self) -> None:
        assert self.offered == len(self.line) + len(self.running) + len(self.ends)
        for mode in MODES:
            assert sum(key.mode == mode for key in self.running) <= PERMITS[mode]
        counts = self.lanes.counts()
        assert counts["follow_up"] == len(self.line.keys() & self.running.keys())
        assert sum(counts.values()) == len(self.line) + len(self.running)

    @invariant()
    def the_next_wake_is_the_earliest_wait(self) -> None:
        assert self.lanes.next_wake_ms() == min((line.wait_until_ms for line in self.line.values() if line.wait_until_ms), default=None)

    @invariant()
    def heaps_stay_small(self) -> None:
        assert sum(map(len, self.lanes._ready.values())) <= 2 * self.orders

    def teardown(self) -> None:
        """Nothing is lost: with time, every trigger ends, asked or not."""
        for _ in range(3 * len(SYMBOLS)):
            self.now_ms += 200
            self.start()
            for one in list(self.running.values()):
                self.lanes.finish(self.running.pop(one.lane))
                self.ended(one, "finished")
                self.line_up()
        assert len(self.ends) == self.offered
        assert self.lanes._lanes == {}


Schedule.TestCase.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
TestSchedule = Schedule.TestCase


def test_only_what_runs_can_finish() -> None:
    lanes = Lanes({"fast": 1}, STALE_MS)
    one, other = trigger(1), trigger(2)
    lanes.offer(one, START)
    lanes.start_ready(START)
    with pytest.raises(KeyError, match="does not run"):
        lanes.finish(other)


def test_a_follow_up_behind_a_running_trigger_is_single_and_runs_next() -> None:
    lanes = Lanes({"fast": 1}, STALE_MS)
    first, second, third = trigger(1), trigger(2), trigger(3)
    lanes.offer(first, START)
    lanes.start_ready(START)
    assert lanes.offer(second, START) is None
    assert lanes.offer(third, START) == Ended(second, "conflated", "newer_trigger")
    assert lanes.start_ready(START) == ([], [])
    lanes.finish(first)
    started, _ = lanes.start_ready(START)
    assert [one.trigger for one in started] == [third]


def test_replacing_a_queued_trigger_for_hours_takes_no_memory() -> None:
    lanes = Lanes({"fast": 1}, STALE_MS)
    lanes.offer(trigger(0, SYMBOLS[0]), START)
    lanes.start_ready(START)
    for number in range(1, 1_000):
        lanes.offer(trigger(number, SYMBOLS[1]), START)
    assert len(lanes._ready["fast"]) == 1


def test_what_cannot_be_answered_in_time_lets_others_go_first_and_keeps_its_place_for_a_newer_trigger() -> None:
    lanes = Lanes({"fast": 1}, STALE_MS)
    late, other, newer = trigger(1, SYMBOLS[0]), trigger(2, SYMBOLS[1]), trigger(3, SYMBOLS[0])

    def verdict(one: Trigger, passed_over: bool) -> Verdict:  # noqa: ARG001, FBT001 - the lanes call it
        return "wait" if one is late else "ask"

    lanes.offer(late, START)
    lanes.offer(other, START)
    started, ended = lanes.start_ready(START, verdict)
    assert ([one.trigger for one in started], ended) == ([other], [])
    lanes.offer(trigger(4, SYMBOLS[2]), START)
    assert lanes.offer(newer, START) == Ended(late, "conflated", "newer_trigger")
    lanes.finish(other)
    started, _ = lanes.start_ready(START, verdict)
    assert [one.trigger for one in started] == [newer]


def test_a_lane_without_its_prefix_lets_each_busy_lane_go_first_once_and_no_more() -> None:
    cold, *warm = SYMBOLS
    lanes = Lanes({"fast": 1}, STALE_MS, lambda key: key.symbol == cold)
    for number, symbol in enumerate([*warm, cold]):
        lanes.offer(trigger(number, symbol), START)
    order = []
    for number in range(100, 120):
        ((one, _),) = lanes.start_ready(START)[0]
        order.append(one.lane.symbol)
        lanes.finish(one)
        if one.lane.symbol != cold:
            lanes.offer(trigger(number, one.lane.symbol), START)
    assert order.index(cold) == 2 * len(warm)


def test_a_lane_whose_trigger_ended_unasked_goes_first_with_its_next_one() -> None:
    lanes = Lanes({"fast": 1}, STALE_MS)
    lanes.offer(trigger(1, SYMBOLS[0], ts_ms=START - STALE_MS - 1), START)
    assert [one.reason for one in lanes.start_ready(START)[1]] == ["too_old"]
    lanes.offer(trigger(2, SYMBOLS[1]), START)
    lanes.offer(trigger(3, SYMBOLS[0]), START)
    assert [one.trigger.lane.symbol for one in lanes.start_ready(START)[0]] == [SYMBOLS[0]]


def test_while_triggers_queue_for_permits_these_are_given_out_in_groups_of_half_of_them() -> None:
    lanes = Lanes({"fast": 4}, STALE_MS)
    for number in range(8):
        lanes.offer(trigger(number, str(number)), START)
    running = [one.trigger for one in lanes.start_ready(START)[0]]
    assert len(running) == 4
    lanes.finish(running.pop())
    assert lanes.start_ready(START) == ([], [])
    lanes.finish(running.pop())
    assert len(lanes.start_ready(START)[0]) == 2


def test_a_free_permit_does_not_wait_for_calls_that_hang() -> None:
    lanes = Lanes({"fast": 4}, STALE_MS)
    for number in range(8):
        lanes.offer(trigger(number, str(number)), START)
    lanes.finish(lanes.start_ready(START)[0][0].trigger)
    assert lanes.start_ready(START) == ([], [])
    wake_ms = lanes.next_wake_ms()
    assert wake_ms is not None
    assert lanes.start_ready(wake_ms - 1) == ([], [])
    assert len(lanes.start_ready(wake_ms)[0]) == 1
    assert lanes.next_wake_ms() is None


def test_a_trigger_that_nothing_waits_before_starts_with_any_free_permit() -> None:
    lanes = Lanes({"fast": 4}, STALE_MS)
    for number in range(4):
        lanes.offer(trigger(number, str(number)), START)
    lanes.finish(lanes.start_ready(START)[0][0].trigger)
    lanes.offer(trigger(9, "9"), START)
    assert len(lanes.start_ready(START)[0]) == 1


@given(permits=st.integers(1, 9), steps=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 9), st.integers(0, 150)), max_size=40))
def test_no_trigger_waits_beside_a_free_permit_without_a_wake_that_starts_it(permits: int, steps: list[tuple[int, int, int]]) -> None:
    lanes, running, now_ms, offered = Lanes({"fast": permits}, 1_000_000_000), list[Trigger](), START, 0
    for offers, finishes, passed_ms in steps:
        now_ms += passed_ms
        for _ in range(offers):
            lanes.offer(trigger(offered, str(offered)), now_ms)
            offered += 1
        for one in running[:finishes]:
            lanes.finish(one)
        del running[:finishes]
        running += [one.trigger for one in lanes.start_ready(now_ms)[0]]
        assert len(running) <= permits
        if lanes.counts()["queued"] and len(running) < permits:
            wake_ms = lanes.next_wake_ms()
            assert wake_ms is not None
            assert wake_ms > now_ms
            now_ms = wake_ms
            started = lanes.start_ready(now_ms)[0]
            assert started
            running += [one.trigger for one in started]
            assert not lanes.counts()["queued"] or len(running) == permits
