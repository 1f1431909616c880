"""Two topics come out in the order in which they were appended, however they are read."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.scoring.topic_merge import Merge


def test_what_was_appended_first_goes_first() -> None:
    merge: Merge[str] = Merge()
    merge.begin(0, (0, 0))
    merge.put(1, 0, 0, 20, "bar")
    merge.put(0, 0, 0, 10, "signal")
    assert merge.take() == "signal"


def test_nothing_passes_an_empty_side_until_the_broker_says_that_it_is_empty() -> None:
    merge: Merge[str] = Merge()
    merge.begin(0, (0, 0))
    merge.put(1, 0, 0, 20, "bar")
    assert merge.take() is None
    assert merge.awaited() == [(0, 0)]
    merge.end(0, 0, 1, merge.ask())  # there is a signal, not read yet
    assert merge.take() is None
    merge.put(0, 0, 0, 10, "signal")
    merge.end(0, 0, 1, merge.ask())
    assert [merge.take(), merge.take()] == ["signal", "bar"]


def test_an_answer_asked_for_before_a_record_arrived_says_nothing_about_it() -> None:
    merge: Merge[str] = Merge()
    merge.begin(0, (0, 0))
    ticket = merge.ask()
    merge.put(1, 0, 0, 20, "bar")
    merge.end(0, 0, 0, ticket)
    assert merge.take() is None
    merge.end(0, 0, 0, merge.ask())
    assert merge.take() == "bar"


def test_a_partition_that_waits_holds_up_no_other() -> None:
    merge: Merge[str] = Merge()
    merge.begin(0, (0, 0))
    merge.begin(1, (0, 0))
    merge.put(1, 0, 0, 20, "waits")
    merge.put(1, 1, 0, 30, "bar")
    merge.put(0, 1, 0, 40, "signal")
    assert merge.take() == "bar"


def test_what_is_read_again_is_left_out() -> None:
    merge: Merge[str] = Merge()
    merge.begin(0, (5, 0))
    merge.put(0, 0, 4, 10, "before the commit")
    merge.put(0, 0, 5, 10, "signal")
    merge.put(0, 0, 5, 10, "again")
    merge.end(1, 0, 0, merge.ask())
    assert [merge.take(), merge.take()] == ["signal", None]


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5)), max_size=30), st.data())
def test_any_order_of_reading_comes_out_in_the_order_of_appending(appended: list[tuple[int, int]], data: st.DataObject) -> None:
    """The clock of the log steps on by what is drawn with each record; both topics grow while they are read."""
    now_ms = 0
    log: tuple[list[int], list[int]] = ([], [])
    for side, step in appended:
        now_ms += step
        log[side].append(now_ms)
    expected = sorted([(at, 0, number) for number, at in enumerate(log[0])] + [(at, 1, number) for number, at in enumerate(log[1])])
    merge: Merge[tuple[int, int, int]] = Merge()
    merge.begin(0, (0, 0))
    read = [0, 0]
    taken: list[tuple[int, int, int]] = []
    while len(taken) < len(expected):
        ways = [side for side in (0, 1) if read[side] < len(log[side])]
        side = data.draw(st.sampled_from([*ways, 2, 2]))
        if side < 2:
            merge.put(side, 0, read[side], log[side][read[side]], (log[side][read[side]], side, read[side]))
            read[side] += 1
        else:
            for one, partition in merge.awaited():
                merge.end(one, partition, len(log[one]), merge.ask())
        while (item := merge.take()) is not None:
            taken.append(item)
    assert taken == expected
