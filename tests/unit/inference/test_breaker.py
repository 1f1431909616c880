"""The breaker against its promises, over random lives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.breaker import Admission, Breaker, CallResult

OUTCOMES: list[CallResult] = ["answered", "failed", "unknown"]
EVENTS = st.lists(st.one_of(st.just("call"), st.tuples(st.integers(0, 5), st.sampled_from(OUTCOMES)), st.integers(1, 60)), max_size=80)


@given(EVENTS, st.integers(1, 4), st.integers(1, 50))
def test_an_open_breaker_admits_nothing_and_a_half_open_one_a_single_probe(
    events: list[str | tuple[int, CallResult] | int], failures: int, open_ms: int
) -> None:
    breaker, now = Breaker(failures, open_ms), 0
    flying: list[Admission] = []
    for event in events:
        if isinstance(event, int):
            now += event
        elif isinstance(event, tuple):
            if flying:
                breaker.settle(flying.pop(event[0] % len(flying)), event[1], now)
        else:
            state = breaker.state(now)
            probes = [one for one in flying if one.probe]
            admission = breaker.admit(now)
            if state == "closed":
                assert admission is not None
                assert not admission.probe
            if state == "open":
                assert admission is None
            if state == "half_open" and admission is not None:
                assert admission.probe
                assert all(one.serial != admission.serial for one in probes)
            if admission is not None:
                flying.append(admission)


@given(st.lists(st.sampled_from(OUTCOMES), max_size=60), st.integers(1, 6))
def test_it_opens_exactly_at_that_many_failures_in_a_row(outcomes: list[CallResult], failures: int) -> None:
    breaker, row = Breaker(failures, 1_000), 0
    for now, outcome in enumerate(outcomes):
        admission = breaker.admit(now)
        assert (admission is None) == (row >= failures)
        if admission is None:
            break
        breaker.settle(admission, outcome, now)
        row = 0 if outcome == "answered" else row + (outcome == "failed")


def test_a_probe_that_is_answered_closes_it_and_one_that_fails_opens_it_again() -> None:
    breaker = Breaker(1, 100)
    first = breaker.admit(0)
    assert first is not None
    breaker.settle(first, "failed", 0)
    assert breaker.state(99) == "open"
    probe = breaker.admit(100)
    assert probe is not None
    assert not breaker.would_admit(100)
    breaker.settle(probe, "failed", 110)
    assert breaker.state(209) == "open"
    probe = breaker.admit(210)
    assert probe is not None
    breaker.settle(probe, "answered", 220)
    assert breaker.state(220) == "closed"


def test_a_probe_given_up_lets_the_next_one_pass() -> None:
    breaker = Breaker(1, 100)
    first = breaker.admit(0)
    assert first is not None
    breaker.settle(first, "failed", 0)
    probe = breaker.admit(100)
    assert probe is not None
    breaker.settle(probe, "unknown", 101)
    assert breaker.would_admit(101)


def test_what_was_admitted_before_it_opened_neither_closes_nor_reopens_it() -> None:
    breaker = Breaker(1, 100)
    early, late = breaker.admit(0), breaker.admit(0)
    assert early is not None
    assert late is not None
    breaker.settle(early, "failed", 10)
    breaker.settle(late, "answered", 20)
    assert breaker.state(20) == "open"


def test_a_clock_set_back_does_not_keep_it_open() -> None:
    breaker = Breaker(1, 100)
    first = breaker.admit(1_000_000)
    assert first is not None
    breaker.settle(first, "failed", 1_000_000)
    assert breaker.would_admit(5)


@pytest.mark.parametrize(("failures", "open_ms"), [(0, 1), (1, 0)])
def test_it_refuses_settings_that_mean_nothing(failures: int, open_ms: int) -> None:
    with pytest.raises(ValueError, match="breaker needs"):
        Breaker(failures, open_ms)
