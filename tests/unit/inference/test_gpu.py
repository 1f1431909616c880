"""The simulated GPU: it reproduces what was measured, and accounts for every token of its memory."""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.inference.simulator.gpu import Call, Gpu, PromptTooLongError, Step
from services.inference.simulator.timing import Acceptance, Calibration, Point

CALIBRATION = Calibration.from_file(Path("services/inference/data/calibration-h100.json"))


def call(rid: str, prompt: list[int], output_tokens: int = 4, max_new_tokens: int = 100) -> Call:
    output = np.arange(output_tokens, dtype=np.int32)
    return Call(rid, np.array(prompt, np.int32), output, max_new_tokens, Acceptance(CALIBRATION.speculation, rid), 0.0)


def run(gpu: Gpu, now: float = 0.0) -> float:
    while (step := gpu.next_step(now)) is not None:
        now += step.duration_ms
        gpu.finish(step, now)
    return now


def ended_ms(point: Point, round_: int) -> list[float]:
    gpu = Gpu(CALIBRATION)
    calls = []
    for number in range(point.at_once):
        prompt = np.full(point.prompt_tokens, number, np.int32)
        if point.new_tokens < point.prompt_tokens:
            gpu.tree.insert(prompt[: point.prompt_tokens - point.new_tokens + 1])
            prompt[point.prompt_tokens - point.new_tokens + 1 :] = 1_000
        acceptance = Acceptance(CALIBRATION.speculation, f"{round_}:{number}")
        answer = np.zeros(point.output_tokens + 1, np.int32)
        calls.append(Call(str(number), prompt, answer, point.output_tokens, acceptance, 0.0))
    gpu.submit(calls[0])
    first = gpu.next_step(0.0)
    assert first is not None
    for later in calls[1:]:
        gpu.submit(later)
    gpu.finish(first, first.duration_ms)
    run(gpu, first.duration_ms)
    return [one.ended_ms for one in calls if one.ended_ms is not None]


@pytest.mark.parametrize("point", CALIBRATION.points, ids=lambda point: point.what)
def test_the_calibration_reproduces_its_own_points(point: Point) -> None:
    rounds = 1 if point.output_tokens == 1 else 120 // point.at_once
    ended = [ms for round_ in range(rounds) for ms in ended_ms(point, round_)]
    assert rounds * point.at_once == len(ended)
    assert statistics.median(ended) == pytest.approx(point.median_ms, rel=CALIBRATION.tolerance)


@pytest.mark.parametrize("context", [8_192, 32_768])
def test_a_single_call_decodes_in_the_measured_range(context: int) -> None:
    tokens_per_s = CALIBRATION.speculation.accept_length / CALIBRATION.decode_ms([context]) * 1_000
    assert 198 <= tokens_per_s <= 327


def test_acceptance_has_its_mean_and_is_a_function_of_its_seed() -> None:
    draws = [[Acceptance(CALIBRATION.speculation, "a").draw() for _ in range(1)] for _ in range(2)]
    assert draws[0] == draws[1]
    acceptance = Acceptance(CALIBRATION.speculation, "a")
    drawn = [acceptance.draw() for _ in range(20_000)]
    assert statistics.mean(drawn) == pytest.approx(2.5, abs=0.03)
    assert set(drawn) == {1, 2, 3, 4}


def test_decode_stands_still_while_a_long_cold_prompt_is_prefilled_in_chunks() -> None:
    gpu = Gpu(CALIBRATION)
    gpu.submit(call("a", [1, 2, 3], output_tokens=50))
    first = gpu.next_step(0.0)
    assert first is not None
    gpu.finish(first, 48.0)
    gpu.submit(call("b", [7] * 20_000))
    steps: list[Step] = []
    while not steps or not steps[-1].decoding:
        step = gpu.next_step(100.0)
        assert step is not None
        steps.append(step)
        gpu.finish(step, 100.0)
    assert [sum(new for _, new in step.pieces) for step in steps] == [8_192, 8_192, 3_616, 0]


def test_of_a_common_prefix_all_but_the_last_token_or_two_is_found_again() -> None:
    gpu = Gpu(CALIBRATION)
    prompt = list(range(100))
    for rid, ids in (("a", prompt), ("b", prompt), ("c", [*prompt, 7, 8, 9])):
        gpu.submit(call(rid, ids, max_new_tokens=0))
        step = gpu.next_step(0.0)
        assert step is not None
        (done,) = gpu.finish(step, 1.0)
        expected = {"a": 0, "b": 98, "c": 99}[rid]
        assert expected == done.cached_tokens


def test_an_abort_frees_a_running_call_at_once_and_matches_by_prefix() -> None:
    gpu = Gpu(CALIBRATION)
    for rid in ("aa", "ab", "b"):
        gpu.submit(call(rid, [1, 2, 3, 4]))
    step = gpu.next_step(0.0)
    assert step is not None
    assert [one.rid for one in gpu.abort("a", 1.0)] == ["aa", "ab"]
    assert [one.rid for one in gpu.finish(step, 48.0)] == ["b"]
    gpu.abort("b", 50.0)
    assert gpu.idle()
    assert gpu.used_tokens() == 0


def test_a_prompt_that_can_never_be_served_is_refused() -> None:
    gpu = Gpu(CALIBRATION.with_kv_capacity(100))
    with pytest.raises(PromptTooLongError, match="KV cache"):
        gpu.submit(call("a", [1] * 100))
    with pytest.raises(PromptTooLongError, match="context length"):
        gpu.submit(call("a", [1] * 65_536))


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.lists(st.integers(0, 2), min_size=1, max_size=40), st.integers(0, 12)),
        st.tuples(st.just("abort"), st.just([]), st.integers(0, 9)),
        st.tuples(st.just("step"), st.just([]), st.integers(0, 0)),
        st.tuples(st.just("abort in step"), st.just([]), st.integers(0, 9)),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(ACTIONS, st.integers(60, 200))
def test_memory_is_never_overcommitted_and_every_call_ends_once(actions: list[tuple[str, list[int], int]], capacity: int) -> None:
    limits = CALIBRATION.limits.model_copy(update={"kv_capacity_tokens": capacity, "chunk_tokens": 16, "max_running": 4})
    gpu = Gpu(CALIBRATION.model_copy(update={"limits": limits}))
    calls: list[Call] = []
    for kind, prompt, number in actions:
        if kind == "submit":
            calls.append(call(f"{len(calls) % 10}-{len(calls)}", prompt, output_tokens=8, max_new_tokens=number))
            gpu.submit(calls[-1])
        elif kind == "abort":
            gpu.abort(f"{number}-", 0.0)
        elif (step := gpu.next_step(0.0)) is not None:
            assert len(gpu.running) + len(gpu.prefilling) <= 4
            if kind == "abort in step":
                gpu.abort(f"{number}-", 0.0)
            assert all(one.finish != "abort" for one in gpu.finish(step, 0.0))
        assert gpu.tree.tokens + gpu._reserved <= capacity
        assert 0 <= gpu.tree.locked_tokens <= gpu.tree.tokens
    run(gpu)
    assert gpu.idle()
    assert gpu.used_tokens() == 0
    assert all(one.finish is not None for one in calls)
    assert all(one.produced == one.wanted for one in calls if one.finish != "abort")


def test_what_a_step_has_computed_of_an_aborted_prompt_stays_cached() -> None:
    gpu = Gpu(CALIBRATION)
    prompt = list(range(1_000))
    gpu.submit(call("a", prompt))
    step = gpu.next_step(0.0)
    assert step is not None
    gpu.abort("a", 1.0)
    gpu.finish(step, step.duration_ms)
    assert (gpu.idle(), gpu.used_tokens(), gpu.tree.tokens) == (True, 0, 1_000)
    again = call("b", [*prompt, 1_001])
    gpu.submit(again)
    run(gpu)
    assert again.cached_tokens == 1_000 - 1
