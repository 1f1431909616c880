"""How long an answer takes: what is expected follows what the engine has lately shown, for any engine whose times are a line."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.fusion.decide.pace import EnginePace, Line

DEEP_ANSWER_MS = 1_000.0
times = st.floats(0, 1e6)


def asked(pace: EnginePace, number: int, now_ms: float, *, first_ms: float, took_ms: float, tokens: int, warm: bool = False) -> None:
    """Have one question asked and answered, alone."""
    pace.begin(UUID(int=number), "fast", now_ms, warm=warm)
    pace.first_token(UUID(int=number), now_ms + first_ms)
    pace.answered(UUID(int=number), now_ms + took_ms, tokens)


@given(
    base=st.floats(0, 5_000),
    slope=st.floats(0, 1),
    xs=st.lists(st.integers(0, 100_000), min_size=2, max_size=40),
    at=st.integers(0, 100_000),
)
def test_points_on_a_line_give_that_line(base: float, slope: float, xs: list[int], at: int) -> None:
    line = Line()
    for x in xs:
        line.add(x, base + slope * x)
    got = line.at(at)
    assert got is not None
    if max(xs[-5:]) - min(xs[-5:]) > 1_000:
        assert got == pytest.approx(base + slope * at, rel=1e-3, abs=1)
    else:
        assert got >= 0


@given(points=st.lists(st.tuples(times, times), min_size=1, max_size=60), low=times, high=times)
def test_more_tokens_never_take_less_time_and_no_time_is_negative(points: list[tuple[float, float]], low: float, high: float) -> None:
    line = Line()
    for x, y in points:
        line.add(x, y)
    first, second = line.at(min(low, high)), line.at(max(low, high))
    assert first is not None
    assert second is not None
    assert -1e-6 <= first <= second + 1e-6


def test_nothing_is_expected_of_an_engine_that_has_not_answered() -> None:
    pace = EnginePace(DEEP_ANSWER_MS)
    assert pace.needed_ms("fast", warm=False) is None
    pace.begin(UUID(int=1), "fast", 0, warm=False)
    assert pace.needed_ms("fast", warm=False) is None


def test_a_question_is_expected_to_wait_for_the_prompts_before_it() -> None:
    pace = EnginePace(DEEP_ANSWER_MS)
    for number in range(40):
        tokens = 1_000 if number % 2 else 2_000
        asked(pace, number, 10_000 * number, first_ms=0.1 * tokens, took_ms=0.1 * tokens + 50, tokens=tokens)
    alone = pace.needed_ms("fast", warm=False)
    assert alone == 150
    needed = []
    for number in range(3):
        pace.begin(UUID(int=100 + number), "fast", 1e6, warm=False)
        needed.append(pace.needed_ms("fast", warm=False) or 0.0)
    assert needed[1] - needed[0] == pytest.approx(150, abs=20)
    assert needed[2] - needed[1] == pytest.approx(150, abs=20)
    pace.first_token(UUID(int=100), 1e6 + 150)
    assert pace.needed_ms("fast", warm=False) == pytest.approx(needed[1])


def test_warm_and_cold_questions_are_told_apart_by_what_the_engine_computed_for_the_last_ones() -> None:
    pace = EnginePace(DEEP_ANSWER_MS)
    for number in range(40):
        warm = number % 2 == 0
        asked(
            pace,
            number,
            10_000 * number,
            first_ms=30 if warm else 430,
            took_ms=130 if warm else 530,
            tokens=0 if warm else 4_000,
            warm=warm,
        )
    pace.begin(UUID(int=1_000), "fast", 1e6, warm=True)
    assert (pace.needed_ms("fast", warm=True) or 0) < (pace.needed_ms("fast", warm=False) or 0) - 300
    # An engine that has evicted every prefix is soon expected to compute them all.
    for number in range(100, 120):
        asked(pace, number, 1e7 + 10_000 * number, first_ms=430, took_ms=530, tokens=4_000, warm=True)
    assert (pace.needed_ms("fast", warm=True) or 0) > 430


def test_an_engine_that_slows_down_is_expected_to_and_one_question_at_a_time_finds_out_whether_it_still_is() -> None:
    pace = EnginePace(DEEP_ANSWER_MS)
    for number in range(20):
        asked(pace, number, 10_000 * number, first_ms=100, took_ms=200, tokens=1_000)
    for number in range(20, 40):
        pace.begin(UUID(int=number), "fast", 10_000 * number, warm=False)
        pace.timed_out(UUID(int=number), 10_000 * number + 2_500)
    # Alone, it is asked by the yardstick of the quickest answer: that engine may be quick again.
    assert pace.needed_ms("fast", warm=False) == 200
    pace.begin(UUID(int=99), "fast", 1e6, warm=False)
    assert (pace.needed_ms("fast", warm=False) or 0) > 2_500
    pace.dropped(UUID(int=99))
    for number in range(200, 240):
        asked(pace, number, 1e6 + 10_000 * number, first_ms=100, took_ms=200, tokens=1_000)
    pace.begin(UUID(int=999), "fast", 1e8, warm=False)
    assert (pace.needed_ms("fast", warm=False) or 0) < 1_000


def test_a_thought_needs_its_prompt_and_the_time_of_an_answer_whatever_thoughts_have_taken() -> None:
    pace = EnginePace(DEEP_ANSWER_MS)
    for number in range(20):
        pace.begin(UUID(int=number), "deep", 100_000 * number, warm=False)
        pace.first_token(UUID(int=number), 100_000 * number + 100)
        pace.answered(UUID(int=number), 100_000 * number + 30_000, 1_000)
    assert pace.needed_ms("deep", warm=False) is None
    pace.begin(UUID(int=99), "deep", 1e8, warm=False)
    needed = pace.needed_ms("deep", warm=False)
    assert needed is not None
    assert DEEP_ANSWER_MS < needed < DEEP_ANSWER_MS + 500


def test_on_a_clock_that_stands_still_everything_is_asked() -> None:
    pace = EnginePace(DEEP_ANSWER_MS)
    for number in range(20):
        asked(pace, number, 0, first_ms=0, took_ms=0, tokens=1_000)
    pace.begin(UUID(int=99), "fast", 0, warm=False)
    assert pace.needed_ms("fast", warm=False) == 0


def test_what_ended_without_an_answer_leaves_no_trace() -> None:
    pace = EnginePace(DEEP_ANSWER_MS)
    pace.begin(UUID(int=1), "fast", 0, warm=False)
    pace.dropped(UUID(int=1))
    pace.answered(UUID(int=1), 100, 1_000)
    pace.timed_out(UUID(int=1), 100)
    assert pace.needed_ms("fast", warm=False) is None
