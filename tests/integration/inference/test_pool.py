"""Breakers and pools made from settings, against simulators that go away and come back."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import replace

import pytest
from pydantic import SecretStr

from services.core.clock import SystemClock, VirtualClock
from services.core.settings import EngineSettings
from services.inference.connect import connect
from services.inference.engine import Engine, EngineError, EngineInfo, EngineRequest
from services.inference.pool import ranked
from services.inference.simulator.server import Simulator

from .conftest import CALIBRATION, TOKENIZER, prompt, request, simulated, until


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


async def outcome(engine: Engine, clock: VirtualClock, affinity: str = "A.X") -> str:
    base = request(affinity=affinity)
    asked = EngineRequest(base.rid, affinity, "fast", base.input_ids, base.sampling, clock.now_ms() + 20_000, base.text, base.view)
    try:
        chunks = [chunk async for chunk in engine.stream(asked)]
    except EngineError as error:
        return error.reason
    return "answered" if chunks[-1].usage is not None else "no usage"


async def test_the_breaker_opens_while_the_engine_is_away_and_one_call_finds_it_back() -> None:
    clock, port = VirtualClock(), free_port()
    settings = EngineSettings(urls=[f"http://127.0.0.1:{port}"], breaker_failures=2, breaker_open_ms=1_000)
    engine = connect(settings, clock)
    expected = ["engine_unreachable"] * 2 + ["engine_open"] * 2
    assert expected == [await outcome(engine, clock) for _ in range(4)]
    clock.advance_to(1_000)
    assert await outcome(engine, clock) == "engine_unreachable"
    assert await outcome(engine, clock) == "engine_open"
    async with Simulator(CALIBRATION, TOKENIZER, time_scale=0.0).serving(port=port):
        assert await outcome(engine, clock) == "engine_open"
        clock.advance_to(2_000)
        assert await outcome(engine, clock) == "answered"
        assert await outcome(engine, clock) == "answered"
        await engine.close()


async def test_each_symbol_stays_at_its_engine_and_all_have_some() -> None:
    clock = VirtualClock()
    async with simulated() as (first, one), simulated() as (second, two):
        engine = connect(EngineSettings(urls=[one, two]), clock)
        for symbol in range(20):
            for _ in range(2):
                assert await outcome(engine, clock, f"S{symbol}") == "answered"
        homes = [ranked(f"S{symbol}", [one, two])[0] for symbol in range(20)]
        assert [2 * homes.count(0), 2 * homes.count(1)] == [first.totals.calls, second.totals.calls]
        assert 0 < first.totals.calls < 40
        load = await engine.load()
        assert load is not None
        assert load.running == 0
        assert (await engine.info()).kv_capacity_tokens == 2_000_000
        await engine.close()


async def test_a_dead_engines_call_goes_to_the_next_one_before_and_after_its_breaker_opens() -> None:
    clock = VirtualClock()
    async with simulated() as (server, alive):
        urls = [f"http://127.0.0.1:{free_port()}", alive]
        engine = connect(EngineSettings(urls=urls, breaker_failures=2, breaker_open_ms=1_000), clock)
        symbol = next(f"S{number}" for number in range(100) if ranked(f"S{number}", urls)[0] == 0)
        assert [await outcome(engine, clock, symbol) for _ in range(5)] == ["answered"] * 5
        assert server.totals.calls == 5
        assert (await engine.info()).source == "simulator"
        warmed = await engine.warm("w" * 32, symbol, prompt(200))
        assert warmed.prompt_tokens == prompt(200).size
        await engine.close()


async def test_engines_that_serve_different_models_are_refused() -> None:
    other = CALIBRATION.model_copy(update={"model": "another shape"})
    async with simulated() as (_, one), Simulator(other, TOKENIZER).serving() as two:
        engine = connect(EngineSettings(urls=[one, two]), VirtualClock())
        with pytest.raises(EngineError, match="serve different models"):
            await engine.info()
        await engine.close()


async def test_the_key_of_the_settings_is_sent() -> None:
    clock = VirtualClock()
    async with simulated(api_key="right") as (_, url):
        engine = connect(EngineSettings(urls=[url], api_key=SecretStr("right")), clock)
        assert await outcome(engine, clock) == "answered"
        await engine.close()


async def test_closing_a_stream_of_the_pool_early_aborts_it_on_its_engine_and_speaks_against_nobody() -> None:
    clock = VirtualClock()
    async with simulated(time_scale=5.0) as (first, one), simulated(time_scale=5.0) as (second, two):
        engine = connect(EngineSettings(urls=[one, two], breaker_failures=1), clock)
        base = request()
        for number in range(3):
            asked = EngineRequest(f"{number:032x}", "A", "fast", base.input_ids, base.sampling, 20_000, base.text, base.view)
            chunks = engine.stream(asked)
            await anext(chunks)
            assert len(first.gpu.running) + len(second.gpu.running) == 1
            await chunks.aclose()
            await until(lambda: first.gpu.idle() and second.gpu.idle())
        await engine.close()


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take what is sent and never answer, as a hung engine does."""
    while await reader.read(1 << 16):
        pass
    writer.close()


async def test_a_hung_engine_stalls_no_symbol_but_its_own_and_each_answer_names_its_engine() -> None:
    clock = VirtualClock()
    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    hung = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with simulated() as (_, one), simulated() as (_, two):
        urls = [hung, one, two]
        engine = connect(EngineSettings(urls=urls), clock)
        for number in range(20):
            home = ranked(f"S{number}", urls)[0]
            if home:
                asked = replace(request(affinity=f"S{number}"), deadline_ms=clock.now_ms() + 3_000)
                async with contextlib.aclosing(engine.stream(asked)) as stream:
                    answering = [chunk.engine async for chunk in stream if chunk.engine is not None]
                assert [info.name for info in answering] == [f"sglang@{urls[home].removeprefix('http://')}"]
        await engine.close()
    server.close()


async def answering(engine: Engine) -> EngineInfo | None:
    """Return which engine a call's first chunk names."""
    chunks = [chunk async for chunk in engine.stream(request())]
    return chunks[0].engine


async def test_another_engine_that_takes_the_address_is_noticed_with_its_first_answer() -> None:
    other = CALIBRATION.model_copy(update={"model": "another model"})
    async with simulated() as (_, url):
        engine = connect(EngineSettings(urls=[url]), SystemClock())
        first = await answering(engine)
        assert first is not None
        assert first == await engine.info()
        port = int(url.rpartition(":")[2])
    async with Simulator(other, TOKENIZER, time_scale=0.0).serving(port=port):
        # No call has failed: the idle connection was closed by the server that is gone.
        second = await answering(engine)
        assert second is not None
        assert second.model == "simulator of another model"
        assert second == await engine.info()
        await engine.close()
