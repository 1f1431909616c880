"""A simulator on loopback, a client for it, and requests."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest

from services.core.clock import SystemClock
from services.core.tokenizer import Tokenizer
from services.inference.engine import EngineRequest, Sampling, TokenIds
from services.inference.sglang_client import SGLangEngine
from services.inference.simulator.server import Simulator
from services.inference.simulator.timing import Calibration

DATA = Path("services/inference/data")
CALIBRATION = Calibration.from_file(DATA / "calibration-h100.json")
TOKENIZER = Tokenizer.from_file(DATA / "tokenizer.json")
CLOCK = SystemClock()
FACTS = "\nclose=100 atr=2 rsi=60 ema_fast=102 ema_slow=100\n"
_numbers = itertools.count(1)


def prompt(tokens: int, fill: int = 300) -> TokenIds:
    """Return a prompt of `tokens` filling tokens and the facts."""
    return np.concatenate([np.full(tokens, fill, np.int32), TOKENIZER.encode(FACTS)])


def request(
    ids: TokenIds | None = None, *, left_ms: int = 20_000, most: int = 200, schema: str | None = None, affinity: str = "A.X"
) -> EngineRequest:
    """Return a request with a rid of its own that has `left_ms` until its deadline."""
    return EngineRequest(
        rid=f"{next(_numbers):032x}",
        affinity=affinity,
        mode="fast",
        input_ids=prompt(64) if ids is None else ids,
        sampling=Sampling(most, 0.0, schema),
        deadline_ms=CLOCK.now_ms() + left_ms,
        text=lambda: ("the rules", FACTS),
        view={},
        trace_headers={"traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01"},
    )


async def until(holds: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Return once `holds()` does; TimeoutError after `timeout_s`."""
    async with asyncio.timeout(timeout_s):
        while not holds():  # noqa: ASYNC110 - what is waited for has no event to tell of it
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def simulated(
    *, time_scale: float = 0.0, kv_tokens: int = 1_000_000, api_key: str | None = None
) -> AsyncIterator[tuple[Simulator, str]]:
    """Yield a simulator and its address."""
    calibration = CALIBRATION.with_kv_capacity(kv_tokens)
    simulator = Simulator(calibration, TOKENIZER, time_scale=time_scale, api_key=api_key)
    async with simulator.serving() as url:
        yield simulator, url


@contextlib.asynccontextmanager
async def connected(url: str, *, api_key: str | None = None) -> AsyncIterator[SGLangEngine]:
    """Yield a client for `url`."""
    engine = SGLangEngine(url, CLOCK, api_key=api_key)
    try:
        yield engine
    finally:
        await engine.close()


@pytest.fixture
async def simulator() -> AsyncIterator[tuple[Simulator, SGLangEngine]]:
    """Yield a simulator that waits for nothing, and a client for it."""
    async with simulated() as (server, url), connected(url) as engine:
        yield server, engine
