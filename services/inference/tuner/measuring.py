"""Measures how long one running engine takes to answer, at a context length and a number of calls at once."""

from __future__ import annotations

import asyncio
import statistics
import time
import uuid
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass

import numpy as np

from services.core.clock import SystemClock
from services.inference.engine import Engine, EngineRequest, Sampling, TokenIds, Usage
from services.inference.tuner.prompts import Prompt

_LIMIT_MS = 120_000


@dataclass(frozen=True, slots=True)
class Timing:
    """One call, in milliseconds from the moment that it was sent."""

    first_ms: float
    total_ms: float
    usage: Usage

    @property
    def tokens_per_s(self) -> float | None:
        """Return the decode rate after the first token, None for an answer of one."""
        after = self.usage.output_tokens - 1
        return after / (self.total_ms - self.first_ms) * 1000 if after > 0 and self.total_ms > self.first_ms else None


@dataclass(frozen=True, slots=True)
class Cell:
    """What was found at one length and concurrency; medians in milliseconds and tokens.

    `step_ms` is the time of one decoding step (draft, verification, draft extension): it does not depend on how much is accepted,
    so it can be compared between engines whose weights are random.
    """

    length: int
    at_once: int
    calls: int
    first_ms: float
    total_ms: float
    total_p95_ms: float
    tokens_per_s: float | None
    accept_length: float | None
    step_ms: float | None
    cached_share: float | None


async def time_call(engine: Engine, ids: TokenIds, max_new_tokens: int) -> Timing:
    """Send one call, which ignores the model's wish to end, and return its times; raise EngineError."""
    request = EngineRequest(
        rid=uuid.uuid4().hex,
        affinity="tuning",
        mode="fast",
        input_ids=ids,
        sampling=Sampling(max_new_tokens=max_new_tokens, ignore_eos=True),
        deadline_ms=SystemClock().now_ms() + _LIMIT_MS,
        text=lambda: ("", ""),
        view={},
    )
    began = time.perf_counter()
    first_ms: float | None = None
    usage = Usage(prompt_tokens=ids.size, output_tokens=0)
    async with aclosing(engine.stream(request)) as chunks:
        async for chunk in chunks:
            if first_ms is None:
                first_ms = (time.perf_counter() - began) * 1000
            usage = chunk.usage or usage
    total_ms = (time.perf_counter() - began) * 1000
    return Timing(total_ms if first_ms is None else first_ms, total_ms, usage)


async def cell(engine: Engine, prompts: Sequence[Prompt], *, at_once: int, rounds: int, answer_tokens: int, seed: int = 0) -> Cell:
    """Measure `rounds` rounds of `at_once` calls behind cached prefixes, each with a tail that was never sent before.

    Raises EngineError when a call fails.
    """
    used = [prompts[number % len(prompts)] for number in range(at_once)]
    for prompt in {id(prompt): prompt for prompt in used}.values():
        await engine.warm(uuid.uuid4().hex, "tuning", prompt.prefix)
    source = np.random.default_rng([seed, at_once, prompts[0].prefix.size])
    found: list[Timing] = []
    for number in range(rounds + 1):
        calls = [np.concatenate([prompt.prefix, _shuffled(prompt.tail, source)]) for prompt in used]
        timings = await asyncio.gather(*(time_call(engine, ids, answer_tokens) for ids in calls))
        if number:  # the first round warms batches of this size
            found += timings
    return summary(prompts[0].prefix.size + prompts[0].tail.size, at_once, found)


def summary(length: int, at_once: int, timings: Sequence[Timing]) -> Cell:
    """Return the medians of the calls; ValueError when there are none."""
    if not timings:
        raise ValueError("no calls were timed")
    totals = sorted(timing.total_ms for timing in timings)
    steps = [(timing.usage.accept_length or 1.0) / timing.tokens_per_s * 1000 for timing in timings if timing.tokens_per_s is not None]
    return Cell(
        length=length,
        at_once=at_once,
        calls=len(timings),
        first_ms=statistics.median(timing.first_ms for timing in timings),
        total_ms=statistics.median(totals),
        total_p95_ms=totals[min(len(totals) - 1, int(0.95 * len(totals)))],
        tokens_per_s=_median([timing.tokens_per_s for timing in timings]),
        accept_length=_median([timing.usage.accept_length for timing in timings]),
        step_ms=_median(steps),
        cached_share=_median(
            [None if timing.usage.cached_tokens is None else timing.usage.cached_tokens / timing.usage.prompt_tokens for timing in timings]
        ),
    )


def _median(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return statistics.median(present) if present else None


def _shuffled(tail: TokenIds, source: np.random.Generator) -> TokenIds:
    return source.permutation(tail)
