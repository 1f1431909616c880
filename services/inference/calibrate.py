"""Measures a live engine and fits the simulator's timing model to it: what `data/calibration-*.json` hold.

The points are those of the shipped file: first tokens cold, cached, and by how many tokens are new behind a cached prefix, and 64
tokens in and 80 out at several concurrencies.
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
APPENDED_TOKENS = (300, 1_024, 4_096)
"""New tokens behind a cached prefix: a decision's tail, and what is sent ahead."""
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
        for new in APPENDED_TOKENS:
            appended = [(await time_call(engine, np.concatenate([prefixes[0], random_ids(new)]), 1)).total_ms for _ in range(rounds)]
            keep(f"first token, {new:,} behind {name} cached", appended, prompt=length + new, new=new)
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


def fit(points: Sequence[Point], accept_length: float, chunk_tokens: int) -> Timing:
    """Return the timing model's constants for the points; raise CalibrationError when they are too few.

    The three constants of a prefill step minimise the squares of the relative errors over the first tokens, cold and cached, a cold
    prompt taking a step for each chunk. Then the three of a decode step do the same over the answers. None is below zero.
    """
    first = [point for point in points if point.output_tokens == 1]
    answers = [point for point in points if point.output_tokens > 1]
    cold = sum(point.new_tokens == point.prompt_tokens for point in first)
    if cold < 2 or len(first) - cold < 1 or len(answers) < 3:  # noqa: PLR2004 - as many as there are constants
        raise CalibrationError(
            f"{cold} cold, {len(first) - cold} cached points and {len(answers)} answers are too few: 2, 1 and 3 are needed"
        )
    rows = [_prefill_row([(point.prompt_tokens - point.new_tokens, point.new_tokens)], chunk_tokens) for point in first]
    prefill = _solved(rows, [point.median_ms for point in first])
    # A last step yields more than is still wanted, of which half a step's surplus is lost on average.
    surplus = (1 - 1 / accept_length) / 2
    rows, times = [], []
    for point in answers:
        steps = (point.output_tokens - 1) / accept_length + surplus
        context = point.prompt_tokens + point.output_tokens / 2
        rows.append([steps, steps * point.at_once, steps * point.at_once * context])
        times.append(point.median_ms - _prefill_of(point, prefill, chunk_tokens))
    if min(times) <= 0:
        raise CalibrationError("an answer took less time than its prefill: the points cannot be of one engine")
    decode = _solved(rows, times, [point.median_ms for point in answers])
    return Timing(
        prefill_step_ms=prefill[0],
        prefill_token_ms=prefill[1],
        prefill_pair_ms=prefill[2],
        step_ms=decode[0],
        step_call_ms=decode[1],
        step_token_ms=decode[2],
    )


def calibration(measured: Measured, info: EngineInfo, *, accelerator: str, source: str) -> Calibration:
    """Return the calibration file's content; its tolerance is what the simulator itself misses of the points, at least 0.05."""
    raw = info.raw
    draft_tokens = int(raw.get("speculative_num_draft_tokens") or 1) if measured.accept_length is not None else 1
    accept_length = min(max(measured.accept_length or 1.0, 1.0), float(draft_tokens))
    chunk_tokens = max(int(raw.get("chunked_prefill_size") or 8_192), 1)
    timing = fit(measured.points, accept_length, chunk_tokens)
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
            chunk_tokens=chunk_tokens,
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


def _solved(rows: Sequence[Sequence[float]], times: Sequence[float], scale: Sequence[float] | None = None) -> list[float]:
    """Return the constants, none below zero, that least miss `times`, each relative to its `scale` (itself when None).

    Of the least-squares solutions of all subsets of constants, the best that has none below zero: with three, a search of seven.
    """
    weights = np.array(times if scale is None else scale)
    matrix, wanted = np.array(rows) / weights[:, None], np.array(times) / weights
    best: tuple[float, list[float]] | None = None
    width = matrix.shape[1]
    for chosen in itertools.chain.from_iterable(itertools.combinations(range(width), count) for count in range(1, width + 1)):
        # Constants differ by powers of ten; a unit column each keeps the solution exact.
        part = matrix[:, chosen]
        size = np.linalg.norm(part, axis=0)
        solved = np.linalg.lstsq(part / size, wanted, rcond=None)[0] / size
        if (solved < 0).any():
            continue
        error = float(np.square(part @ solved - wanted).sum())
        found = [0.0] * width
        for index, value in zip(chosen, solved, strict=True):
            found[index] = float(value)
        if best is None or error < best[0]:
            best = error, found
    if best is None:
        raise CalibrationError("the times do not grow with what was asked: the points cannot be of one engine")
    return best[1]


def _prefill_row(pieces: Sequence[tuple[int, int]], chunk_tokens: int) -> list[float]:
    """Return steps, tokens and pairs of tokens of a prefill of `pieces`, each (tokens before it, its tokens)."""
    new = sum(tokens for _, tokens in pieces)
    pairs = sum((before + tokens) ** 2 - before**2 for before, tokens in pieces)
    return [float(-(-new // chunk_tokens)), float(new), float(pairs)]


def _prefill_of(point: Point, prefill: Sequence[float], chunk_tokens: int) -> float:
    """Return how long an answer's prefills take: the first call's, and, of several, the others' together after it."""
    piece = (point.prompt_tokens - point.new_tokens, point.new_tokens)

    def together(count: int) -> float:
        row = _prefill_row([piece] * count, chunk_tokens)
        return sum(constant * amount for constant, amount in zip(prefill, row, strict=True))

    return together(1) + (together(point.at_once - 1) if point.at_once > 1 else 0.0)
