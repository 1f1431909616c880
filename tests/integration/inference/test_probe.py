"""An engine that nobody asks, against a simulator whose GPU hangs while its pages answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import aiohttp
import pytest

from services.core.breaker import Breaker
from services.core.metrics import REGISTRY
from services.core.settings import EngineSettings
from services.inference.connect import connect
from services.inference.engine import Engine, EngineRequest
from services.inference.with_breaker import EngineWithBreaker

from .conftest import CLOCK, request, simulated, until
from .test_openai_client import Peer


@contextlib.asynccontextmanager
async def watched(url: str, **settings: object) -> AsyncIterator[Engine]:
    engine = connect(EngineSettings(urls=[url], probe_idle_ms=20, breaker_open_ms=20, connect_timeout_ms=50, **settings), CLOCK)
    watch = asyncio.create_task(engine.watch())
    try:
        yield engine
    finally:
        watch.cancel()
        await asyncio.wait([watch])
        await engine.close()


def metric(name: str, engine: Engine, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, {"engine": engine.name, **labels}) or 0.0


async def text_of(engine: Engine, asked: EngineRequest) -> str:
    return "".join([chunk.text async for chunk in engine.stream(asked)])


async def post(address: str) -> None:
    async with aiohttp.ClientSession() as session, session.post(address) as answer:
        answer.raise_for_status()


async def test_a_hung_gpu_behind_a_page_that_says_healthy_is_found_and_found_back() -> None:
    async with simulated() as (simulator, url), watched(url, probe_timeout_ms=60) as engine:
        await until(lambda: metric("aquiline_engine_probes_total", engine, end="answered") > 2)
        assert simulator.totals.output_tokens >= 4
        await post(f"{url}/pause_generation")
        async with aiohttp.ClientSession() as session, session.get(f"{url}/health") as answer:
            assert answer.status == 200
        await until(lambda: metric("aquiline_engine_left_alone", engine) == 1)
        assert metric("aquiline_engine_silent_seconds", engine) > 0.3
        await post(f"{url}/continue_generation")
        await until(lambda: metric("aquiline_engine_left_alone", engine) == 0)


async def test_a_decision_that_comes_during_a_probe_has_it_aborted_on_the_engine() -> None:
    async with simulated() as (simulator, url), watched(url, probe_timeout_ms=20_000) as engine:
        await until(lambda: metric("aquiline_engine_probes_total", engine, end="answered") > 0)
        await post(f"{url}/pause_generation")
        await until(lambda: not simulator.gpu.idle())
        asked = request()
        answer = asyncio.create_task(text_of(engine, asked))
        await until(lambda: [call.rid for call in simulator.gpu.waiting] == [asked.rid])
        await post(f"{url}/continue_generation")
        assert "action" in await answer
        assert metric("aquiline_engine_probes_total", engine, end="abandoned") == 1


@pytest.mark.parametrize(("key", "end"), [("right", "answered"), ("wrong", "engine_refused")])
async def test_other_servers_are_asked_in_words_and_one_that_refuses_stays_silent(key: str, end: str) -> None:
    peer = Peer()
    async with peer.engine(key=key) as client:
        guarded = EngineWithBreaker(client, Breaker(2, 1_000), CLOCK, patience_ms=1_000, probe_idle_ms=20, probe_timeout_ms=5_000)
        watch = asyncio.create_task(guarded.watch())
        await until(lambda: metric("aquiline_engine_probes_total", guarded, end=end) > 2)
        asked_s = metric("aquiline_engine_silent_seconds", guarded)
        watch.cancel()
        await asyncio.wait([watch])
    assert [body["max_tokens"] for body in peer.bodies] == [4] * len(peer.bodies)
    assert bool(peer.bodies) == (key == "right")
    assert guarded.available
    assert (asked_s > 0.05) == (key == "wrong")
