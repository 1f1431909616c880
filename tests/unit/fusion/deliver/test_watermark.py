"""The watermark never passes unfinished work, and the outputs that a commit names never lie behind an outcome that it needs."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from services.core.bus import TopicPartition
from services.fusion.deliver.watermark import PartitionWatermark, Watermarks

TP = TopicPartition("market-features", 0)


class Worker(RuleBasedStateMachine):
    """Lives of workers one after the other on one partition, each from what the one before committed.

    A record makes no, one or two triggers. A trigger is concluded, then its outcome is appended (the truth that a restart reads),
    then acknowledged. The model knows all outcomes ever appended, with their place in the output log.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log: list[int] = []
        """Triggers of each record."""
        self.outputs: list[tuple[int, int]] = []
        """(record, trigger) of each outcome, in the order of the output log."""
        self.committed: tuple[int, tuple[int, ...]] = (0, (0,))

    @initialize()
    def first_life(self) -> None:
        self.start()

    def start(self) -> None:
        offset, (named,) = self.committed
        self.known = set(self.outputs[named:])
        end = len(self.outputs)
        self.mark = PartitionWatermark(TP, offset, (end,), ((named,), len(self.log)))
        self.unfinished: list[tuple[int, int]] = []
        self.appended: list[tuple[int, int]] = []

    @rule(triggers=st.integers(0, 2), gap=st.integers(0, 2))
    def arrive(self, triggers: int, gap: int) -> None:
        self.log.extend([0] * gap)  # offsets that carry no record
        self.log.append(triggers)

    @precondition(lambda self: self.mark.next_offset < len(self.log))
    @rule(count=st.integers(1, 5))
    def take_in(self, count: int) -> None:
        for offset in range(self.mark.next_offset, min(len(self.log), self.mark.next_offset + count)):
            self.mark.advance(offset + 1)
            for number in range(self.log[offset]):
                if (offset, number) not in self.known:
                    assert (offset, number) not in self.outputs, "a trigger that has an outcome was asked again"
                    self.mark.hold(offset)
                    self.unfinished.append((offset, number))

    @precondition(lambda self: self.unfinished)
    @rule(data=st.data())
    def conclude(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.unfinished) - 1))
        one = self.unfinished.pop(at)
        self.outputs.append(one)
        self.appended.append(one)

    @precondition(lambda self: self.appended)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        one = self.appended.pop(data.draw(st.integers(0, len(self.appended) - 1)))
        (end,) = self.mark.output_ends
        self.mark.output_ends = (max(end, self.outputs.index(one) + 1),)
        self.mark.release(one[0])

    @rule()
    def commit(self) -> None:
        self.committed = self.mark.committable()

    @rule(commits=st.booleans())
    def restart(self, *, commits: bool) -> None:
        """Crash, or hand the partition back with what is done committed; an acknowledgement that comes later goes nowhere."""
        if commits:
            self.commit()
        former, late = self.mark, self.appended
        self.start()
        for one in late:
            former.release(one[0])

    @invariant()
    def nothing_unfinished_is_passed(self) -> None:
        offset, (named,) = self.mark.committable()
        done = set(self.outputs) - set(self.appended)
        passed = {(at, number) for at in range(offset) for number in range(self.log[at])}
        assert passed <= done
        assert all((at, number) in self.outputs[named:] for at, number in done if at >= offset)


Worker.TestCase.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
TestWorker = Worker.TestCase


def test_a_second_crash_right_after_a_takeover_still_finds_the_outcomes_of_the_first_life() -> None:
    mark = PartitionWatermark(TP, 100, (50, 60), ((40, 45), 150))
    assert mark.committable() == (100, (40, 45))
    for offset in range(100, 150):
        mark.advance(offset + 1)
    assert mark.committable() == (150, (50, 60))


def test_offsets_that_go_backwards_are_an_error() -> None:
    mark = PartitionWatermark(TP, 5)
    mark.advance(6)
    with pytest.raises(ValueError, match="offset 5 came after 5"):
        mark.advance(5)
    with pytest.raises(KeyError):
        mark.release(5)


def test_a_record_is_never_held_out_of_order() -> None:
    mark = PartitionWatermark(TP, 0)
    mark.advance(2)
    mark.hold(1)
    with pytest.raises(ValueError, match="out of order"):
        mark.hold(0)


def test_what_is_released_after_a_revoke_does_not_move_the_next_owner() -> None:
    marks = Watermarks()
    former = PartitionWatermark(TP, 0)
    marks.assign(former)
    former.advance(1)
    former.hold(0)
    marks.assign(PartitionWatermark(TP, 0))
    former.release(0)
    found = marks.get(TP)
    assert found is not None
    assert found.committable() == (0, ())
    assert marks.unfinished == 0
    marks.revoke(TP)
    assert list(marks) == []
    assert marks.get(TP) is None
