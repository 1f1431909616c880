"""Warming: every kind of request is sent once before the engine counts as ready, and the prefixes that were in use come back.

The first call of a shape compiles kernels (8.8 s were seen), the first sampled one those of sampling (84 s), and the first use of a
grammar compiles the grammar.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

import numpy as np
import structlog

from services.core.clock import SystemClock
from services.inference.engine import THOUGHT_END, Engine, EngineError, EngineRequest, Sampling, TokenIds, Usage

log = structlog.get_logger()

PrefixSource = Callable[[], Awaitable[Sequence[TokenIds]]]
"""Returns the prefixes that were in use on this engine, hottest first: `PrefixStore.hottest` of the fusion service."""

_LIMIT_MS = 600_000
_FIRST_ID, _LAST_ID = 300, 780
"""Made-up prompts are of ids that every vocabulary has and that are no special tokens."""


@dataclass(frozen=True, slots=True)
class Warmed:
    """One kind of request: milliseconds of the first call and of a second one like it."""

    kind: str
    first_ms: float
    again_ms: float


async def warm(engine: Engine, *, context: int, permits: int, regex: str | None) -> list[Warmed]:
    """Send each kind of request twice: cold and cached prefill, decoding alone, sampled, as a thought, `permits` at once, under a grammar.

    The prompts are up to half of `context` long and random, so that they cost no live prefix more than their own room.
    Raises EngineError when one fails.
    """
    lengths = sorted({1_024, min(8_192, context // 4), context // 2})
    seeds = iter(range(1_000_000))

    async def prefill(length: int) -> None:
        await engine.warm(uuid.uuid4().hex, "warming", _ids(next(seeds), length))

    async def cached(length: int) -> None:
        await _ask(engine, np.concatenate([_ids(-1, length), _ids(next(seeds), 64)]), Sampling(1))

    async def decode(count: int, sampling: Sampling) -> None:
        prompts = [np.concatenate([_ids(-1, 1_024), _ids(next(seeds), 64)]) for _ in range(count)]
        await asyncio.gather(*(_ask(engine, ids, sampling) for ids in prompts))

    await engine.warm(uuid.uuid4().hex, "warming", _ids(-1, lengths[-1]))
    kinds: list[tuple[str, Callable[[], Awaitable[None]]]] = []
    for length in lengths:
        kinds.append((f"cold prefill, {length} tokens", partial(prefill, length)))
        kinds.append((f"cached prefill, {length} tokens", partial(cached, length)))
    kinds += [
        ("decode", partial(decode, 1, Sampling(32))),
        ("decode, sampled", partial(decode, 1, Sampling(32, 0.8))),
        # Cutting the distribution has kernels of its own, which are compiled when they are first used.
        ("thought", partial(decode, 1, Sampling(32, 0.6, top_p=0.95, seed=7, stop=THOUGHT_END))),
        (f"decode, {permits} at once", partial(decode, permits, Sampling(32))),
    ]
    if regex is not None:
        kinds.append(("grammar", partial(decode, 1, Sampling(256, regex=regex))))
    return [Warmed(kind, await _timed(send), await _timed(send)) for kind, send in kinds]


async def rewarm(engine: Engine, source: PrefixSource, *, capacity_tokens: int) -> tuple[int, int]:
    """Prefill the prefixes that `source` lists, hottest first, up to `capacity_tokens`; return (prefixes, tokens computed).

    A prefix that fails is skipped: warming only saves time.
    """
    prefixes = computed = held = 0
    for ids in await source():
        if held + ids.size > capacity_tokens:
            break
        try:
            usage = await engine.warm(uuid.uuid4().hex, "warming", ids)
        except EngineError as error:
            log.warning("prefix_not_warmed", tokens=int(ids.size), reason=error.reason)
            continue
        prefixes += 1
        fresh = ids.size - (usage.cached_tokens or 0)
        computed += fresh
        held += fresh
    return prefixes, int(computed)


async def _ask(engine: Engine, ids: TokenIds, sampling: Sampling) -> Usage | None:
    request = EngineRequest(
        rid=uuid.uuid4().hex,
        affinity="warming",
        mode="fast",
        input_ids=ids,
        sampling=sampling,
        deadline_ms=SystemClock().now_ms() + _LIMIT_MS,
        text=lambda: ("", ""),
        view={},
    )
    usage = None
    async with aclosing(engine.stream(request)) as chunks:
        async for chunk in chunks:
            usage = chunk.usage or usage
    return usage


async def _timed(send: Callable[[], Awaitable[None]]) -> float:
    began = time.perf_counter()
    await send()
    return (time.perf_counter() - began) * 1000


def _ids(seed: int, count: int) -> TokenIds:
    return np.random.default_rng([7, seed % 2**32]).integers(_FIRST_ID, _LAST_ID, count, dtype=np.int32)
