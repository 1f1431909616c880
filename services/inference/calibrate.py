"""Measures a live engine and fits the simulator's timing model to it: what `data/calibration-*.json` hold.

The points are those of the shipped file: first tokens cold and cached, and 64 tokens in and 80 out at several concurrencies.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import statistics
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from services.inference.engine import Engine, EngineInfo, TokenIds
from services.inference.simulator.gpu import Call, Gpu
from services.inference.simulator.timing import Acceptance, Calibration, Limits, Point, Speculation, Timing
from services.inference.tuner.measuring import time_call

NEW_TOKENS = 64
ANSWER_TOKENS = 80
_FIRST_ID, _LAST_ID = 300, 780
_LEAST_TOLERANCE = 0.05
_CALLS_OF_A_CHECK = 120


class CalibrationError(Exception):
    """The engine cannot be used for a calibration; the text says why."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What an engine did: the points, and the mean acceptance length over all answers (None without speculation)."""

    points: list[Point]
    accept_length: float | None


async def measure(
    engine: Engine,
    *,
    lengths: Sequence[int],
    at_once: Sequence[int],
    rounds: int,
    answer_tokens: int = ANSWER_TOKENS,
    say: Callable[[str], None],
) -> Measured:
    """Time the points on a live engine, which should have nothing else to do; raise EngineError and CalibrationError.

    Answers are `answer_tokens` long, whatever the model would say.
    """
    source = np.random.default_rng()
    points: list[Point] = []
    accepted: list[float] = []

    def random_ids(count: int) -> TokenIds:
        return source.integers(_FIRST_ID, _LAST_ID, count, dtype=np.int32)

    def keep(what: str, times: Sequence[float], *, prompt: int, new: int, count: int = 1, output: int = 1) -> None:
        median = statistics.median(times)
        points.append(
            Point(what=what, prompt_tokens=prompt, new_tokens=new, at_once=count, output_tokens=output, median_ms=round(median, 1))
        )
        say(f"{what}: {median:.0f} ms ({len(times)} calls)")

    await time_call(engine, random_ids(1_024), answer_tokens)  # compiles what is compiled on first use
    for length in lengths:
        name = f"{length // 1024}K"
        prefixes = [random_ids(length) for _ in range(max(at_once))]
        cold = [(await time_call(engine, ids, 1)).total_ms for ids in prefixes[: max(rounds, 3)]]
        keep(f"first token, {name} cold", cold, prompt=length, new=length)
        for ids in prefixes[len(cold) :]:
            await engine.warm(uuid.uuid4().hex, "calibration", ids)
        cached = [(await time_call(engine, np.concatenate([prefixes[0], random_ids(NEW_TOKENS)]), 1)).total_ms for _ in range(2 * rounds)]
        keep(f"first token, {name} cached but for {NEW_TOKENS}", cached, prompt=length + NEW_TOKENS, new=NEW_TOKENS)
        for count in at_once:
            times: list[float] = []
            for _ in range(rounds):
                calls = [np.concatenate([ids, random_ids(NEW_TOKENS)]) for ids in prefixes[:count]]
                found = await asyncio.gather(*(time_call(engine, ids, answer_tokens) for ids in calls))
                short = [timing.usage.output_tokens for timing in found if timing.usage.output_tokens < answer_tokens]
                if short:
                    raise CalibrationError(
                        f"an answer ended after {short[0]} of {answer_tokens} tokens although it was to ignore the model's wish to end: "
                        "is this SGLang?"
                    )
                times += [timing.total_ms for timing in found]
                accepted += [timing.usage.accept_length for timing in found if timing.usage.accept_length is not None]
            what = f"{NEW_TOKENS} in, {answer_tokens} out, {name} cached, {count} at once"
            keep(what, times, prompt=length + NEW_TOKENS, new=NEW_TOKENS, count=count, output=answer_tokens)
    return Measured(points, statistics.mean(accepted) if accepted else None)


def fit(points: Sequence[Point], accept_length: float) -> Timing:
    """Return the timing model's constants for the points; raise CalibrationError when they are too few.

    The prefill's two constants solve the shortest and the longest cold point exactly, its floor is the least cached point. The three
    decode constants, none below zero, minimise the largest relative error among the least-squares solutions of their subsets.
    """
    cold = sorted((point for point in points if point.new_tokens == point.prompt_tokens), key=lambda point: point.prompt_tokens)
    cached = [point for point in points if point.output_tokens == 1 and point.new_tokens < point.prompt_tokens]
    answers = [point for point in points if point.output_tokens > 1]
    if len(cold) < 2 or not cached or len(answers) < 3:  # noqa: PLR2004 - as many as there are constants
        raise CalibrationError(
            f"{len(cold)} cold, {len(cached)} cached points and {len(answers)} answers are too few: 2, 1 and 3 are needed"
        )
    short, long = cold[0], cold[-1]
    pair = max(
        0.0,
        (long.median_ms / long.prompt_tokens - short.median_ms / short.prompt_tokens) / (long.prompt_tokens - short.prompt_tokens),
    )
    token = short.median_ms / short.prompt_tokens - pair * short.prompt_tokens
    floor = min(point.median_ms for point in cached)
    half = Timing(prefill_floor_ms=floor, prefill_token_ms=token, prefill_pair_ms=pair, step_ms=0.0, step_call_ms=0.0, step_token_ms=0.0)
    return half.model_copy(update=_decode_constants(answers, half, accept_length))


def calibration(measured: Measured, info: EngineInfo, *, accelerator: str, source: str) -> Calibration:
    """Return the calibration file's content; its tolerance is what the simulator itself misses of the points, at least 0.05."""
    raw = info.raw
    draft_tokens = int(raw.get("speculative_num_draft_tokens") or 1) if measured.accept_length is not None else 1
    accept_length = min(max(measured.accept_length or 1.0, 1.0), float(draft_tokens))
    timing = fit(measured.points, accept_length)
    rounded = Timing.model_validate({name: float(f"{value:.5g}") for name, value in timing.model_dump().items()})
    speculation = f"{raw.get('speculative_algorithm')} with {raw.get('speculative_num_steps')} steps, {draft_tokens} draft tokens"
    made = Calibration(
        source=source,
        accelerator=accelerator,
        model=info.model,
        engine=f"SGLang {raw.get('version')}, attention backend {raw.get('attention_backend')}, "
        + (speculation if draft_tokens > 1 else "no speculation"),
        limits=Limits(
            context_tokens=info.context_tokens or max(point.prompt_tokens for point in measured.points),
            kv_capacity_tokens=info.kv_capacity_tokens or 1,
            chunk_tokens=max(int(raw.get("chunked_prefill_size") or 8_192), 1),
            max_running=int(raw.get("max_running_requests") or 48),
        ),
        limits_source="As the engine's /server_info says.",
        speculation=Speculation(accept_length=round(accept_length, 2), draft_tokens=draft_tokens),
        timing=rounded,
        fit=(fit.__doc__ or "").split("\n\n", 1)[1].replace("\n    ", " ").strip(),
        tolerance=_LEAST_TOLERANCE,
        points=list(measured.points),
    )
    worst = max(abs(simulated_ms(made, point) / point.median_ms - 1) for point in made.points)
    return made.model_copy(update={"tolerance": min(0.99, max(_LEAST_TOLERANCE, math.ceil(worst * 100 + 1) / 100))})


def simulated_ms(calibration_: Calibration, point: Point) -> float:
    """Return the median time that the simulator takes for a point; of several calls the others arrive a moment after the first."""
    rounds = 1 if point.output_tokens == 1 else max(_CALLS_OF_A_CHECK // point.at_once, 1)
    ended: list[float] = []
    for round_ in range(rounds):
        gpu = Gpu(calibration_)
        calls = [_simulated_call(gpu, calibration_, point, f"{round_}:{number}", number) for number in range(point.at_once)]
        gpu.submit(calls[0])
        now, later = 0.0, calls[1:]
        while (step := gpu.next_step(now)) is not None:
            for call in later:
                gpu.submit(call)
            later = []
            now += step.duration_ms
            gpu.finish(step, now)
        ended += [call.ended_ms for call in calls if call.ended_ms is not None]
    return statistics.median(ended)


def _simulated_call(gpu: Gpu, calibration_: Calibration, point: Point, seed: str, number: int) -> Call:
    prompt = np.full(point.prompt_tokens, number, np.int32)
    if point.new_tokens < point.prompt_tokens:
        gpu.tree.insert(prompt[: point.prompt_tokens - point.new_tokens + 1])
        prompt[point.prompt_tokens - point.new_tokens + 1 :] = 1_000
    acceptance = Acceptance(calibration_.speculation, seed)
    return Call(seed, prompt, np.zeros(point.output_tokens + 1, np.int32), point.output_tokens, acceptance, 0.0)


def _decode_constants(answers: Sequence[Point], prefill: Timing, accept_length: float) -> dict[str, float]:
    names = ("step_ms", "step_call_ms", "step_token_ms")
    # A last step yields more than is still wanted, of which half a step's surplus is lost on average.
    surplus = (1 - 1 / accept_length) / 2
    steps = np.array([(point.output_tokens - 1) / accept_length + surplus for point in answers])
    waits = np.array([_prefill_of(point, prefill) for point in answers])
    times = np.array([point.median_ms for point in answers])
    columns = np.array([[1.0, point.at_once, point.at_once * (point.prompt_tokens + point.output_tokens / 2)] for point in answers])
    columns *= steps[:, None]
    best: tuple[float, dict[str, float]] | None = None
    for chosen in itertools.chain.from_iterable(itertools.combinations(range(3), count) for count in (3, 2, 1)):
        part = columns[:, chosen]
        solved = np.linalg.lstsq(part / times[:, None], (times - waits) / times, rcond=None)[0]
        if (solved < 0).any():
            continue
        error = float(np.abs(part @ solved + waits - times).max() / times.min())
        found = dict.fromkeys(names, 0.0) | {names[index]: float(value) for index, value in zip(chosen, solved, strict=True)}
        if best is None or error < best[0]:
            best = error, found
    if best is None:
        raise CalibrationError("the answers took less time than their prefills: the points cannot be of one engine")
    return best[1]


def _prefill_of(point: Point, timing: Timing) -> float:
    """Return how long an answer's prefills take: the first call's, and, of several, the others' together after it."""
    before = point.prompt_tokens - point.new_tokens

    def together(count: int) -> float:
        pairs = (before + point.new_tokens) ** 2 - before**2
        return max(timing.prefill_floor_ms, count * (timing.prefill_token_ms * point.new_tokens + timing.prefill_pair_ms * pairs))

    return together(1) + (together(point.at_once - 1) if point.at_once > 1 else 0.0)
