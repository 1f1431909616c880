"""SGLang's client against the simulator over loopback HTTP: what it promises when all goes well, and when nothing does."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from dataclasses import replace

import numpy as np
import orjson
import pytest
from aiohttp import web

from services.inference.engine import Chunk, EngineError, EngineRequest, TokenIds, Usage
from services.inference.sglang_client import SGLangEngine
from services.inference.simulator.server import Simulator

from .conftest import CALIBRATION, FACTS, TOKENIZER, connected, prompt, request, simulated, until

Pair = tuple[Simulator, SGLangEngine]


async def ask(engine: SGLangEngine, asked: EngineRequest) -> tuple[str, list[Chunk], Usage]:
    chunks = [chunk async for chunk in engine.stream(asked)]
    usage = chunks[-1].usage
    assert usage is not None
    assert all(chunk.usage is None for chunk in chunks[:-1])
    return "".join(chunk.text for chunk in chunks), chunks, usage


async def reason_of(engine: SGLangEngine, asked: EngineRequest) -> tuple[str, str]:
    with pytest.raises(EngineError) as caught:
        await ask(engine, asked)
    return caught.value.reason, caught.value.detail


async def test_an_answer_comes_in_pieces_that_add_up(simulator: Pair) -> None:
    _, engine = simulator
    text, chunks, usage = await ask(engine, request())
    assert orjson.loads(text)["action"] == "buy"
    assert len(chunks) > 5
    assert usage.prompt_tokens == prompt(64).size
    assert usage.output_tokens == TOKENIZER.encode(text).size + 1
    assert usage.finish_reason == "stop"
    assert usage.accept_length is not None
    assert 1 <= usage.accept_length <= 4
    assert usage.queue_ms is not None


async def test_the_first_chunk_and_no_other_says_what_was_cached(simulator: Pair) -> None:
    _, engine = simulator
    ids = prompt(500)
    assert (await ask(engine, request(ids)))[1][0].cached_tokens == 0
    _, chunks, usage = await ask(engine, request(ids))
    assert chunks[0].cached_tokens == ids.size - 2 == usage.cached_tokens
    assert all(chunk.cached_tokens is None for chunk in chunks[1:])


async def test_the_same_prompt_gives_the_same_answer_and_the_same_steps(simulator: Pair) -> None:
    _, engine = simulator
    first, second = [await ask(engine, request()) for _ in range(2)]
    assert (first[0], first[2].accept_length) == (second[0], second[2].accept_length)


async def test_a_warmed_prefix_is_found_again_and_nothing_is_written_for_it(simulator: Pair) -> None:
    _, engine = simulator
    warmed = await engine.warm("w" * 32, "A.X", prompt(1_000)[:1_000])
    assert (warmed.output_tokens, warmed.cached_tokens) == (0, 0)
    assert (await ask(engine, request(prompt(1_000))))[2].cached_tokens == 999


async def test_prefixes_beyond_the_capacity_are_evicted_oldest_first() -> None:
    async with simulated(kv_tokens=3_000) as (server, url), connected(url) as engine:
        for fill in (300, 301, 302):
            await ask(engine, request(prompt(1_000, fill)))
        assert server.gpu.tree.tokens <= 3_000
        assert server.gpu.tree.peek(prompt(1_000, 300)) < 1_000
        assert (await ask(engine, request(prompt(1_000, 302))))[2].cached_tokens == prompt(1_000).size - 2


async def test_an_answer_longer_than_allowed_is_cut_off(simulator: Pair) -> None:
    _, engine = simulator
    _, _, usage = await ask(engine, request(most=5))
    assert (usage.finish_reason, usage.output_tokens) == ("length", 5)


async def test_closing_the_stream_early_aborts_the_call_on_the_server() -> None:
    async with simulated(time_scale=5.0) as (server, url), connected(url) as engine:
        chunks = engine.stream(request())
        await anext(chunks)
        assert len(server.gpu.running) == 1
        await chunks.aclose()
        await until(server.gpu.idle)
        await until(lambda: server.totals.aborted == 1)


async def test_a_cancelled_caller_aborts_the_call_on_the_server() -> None:
    async with simulated(time_scale=5.0) as (server, url), connected(url) as engine:
        task = asyncio.create_task(ask(engine, request()))
        await until(lambda: len(server.gpu.running) == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(server.gpu.idle)


async def test_the_deadline_ends_the_call_here_and_there() -> None:
    async with simulated(time_scale=20.0) as (server, url), connected(url) as engine:
        reason, detail = await reason_of(engine, request(left_ms=300))
        assert reason == "engine_timeout"
        assert "by the deadline" in detail
        await until(server.gpu.idle)
        await until(lambda: server.totals.aborted == 1)


async def test_a_call_whose_deadline_has_passed_is_not_sent(simulator: Pair) -> None:
    server, engine = simulator
    assert (await reason_of(engine, request(left_ms=-1)))[0] == "engine_timeout"
    assert server.totals.calls == 0


async def test_a_client_that_disappears_frees_its_slot() -> None:
    async with simulated(time_scale=5.0) as (server, url):
        host, port = url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        body = orjson.dumps({"text": FACTS, "stream": True})
        writer.write(b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await reader.readuntil(b"data:")
        assert len(server.gpu.running) == 1
        writer.transport.abort()
        await until(server.gpu.idle)


async def test_an_abort_from_elsewhere_ends_the_stream_and_says_so() -> None:
    async with simulated(time_scale=5.0) as (_, url), connected(url) as engine:
        asked = request()
        chunks: list[Chunk] = []
        async for chunk in engine.stream(asked):
            if not chunks:
                await engine._send_abort(asked.rid[:31])
            chunks.append(chunk)
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.finish_reason == "abort"


async def test_a_server_killed_mid_stream_is_an_error() -> None:
    arguments = ["--port", "0", "--time-scale", "20"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.inference.simulator", *arguments, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        url = (await process.stdout.readline()).decode().split()[-1]
        async with connected(url) as engine:
            chunks = engine.stream(request())
            await anext(chunks)
            process.kill()
            with pytest.raises(EngineError, match="engine_broke"):
                _ = [chunk async for chunk in chunks]
            await process.wait()
            assert (await reason_of(engine, request()))[0] == "engine_unreachable"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_the_simulator_ends_at_sigterm() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.inference.simulator", "--port", "0", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    await process.stdout.readline()
    os.kill(process.pid, signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 20) == 0


async def test_a_hung_server_ends_in_a_timeout_and_does_not_hold_up_the_caller() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        async with connected(f"http://127.0.0.1:{listening.getsockname()[1]}") as engine:
            assert (await reason_of(engine, request(left_ms=200)))[0] == "engine_timeout"


async def test_a_paused_engine_ends_in_a_timeout_and_works_again_when_resumed(simulator: Pair) -> None:
    server, engine = simulator
    await engine._http.post("/pause_generation", b"{}", 5.0)
    assert (await reason_of(engine, request(left_ms=200)))[0] == "engine_timeout"
    await until(server.gpu.idle)
    await engine._http.post("/continue_generation", b"{}", 5.0)
    await ask(engine, request())


async def test_a_wrong_key_is_refused_with_a_hint_and_the_right_one_serves() -> None:
    async with simulated(api_key="right") as (_, url):
        async with connected(url, api_key="wrong") as engine:
            reason, detail = await reason_of(engine, request())
            assert reason == "engine_refused"
            assert "engine.api_key" in detail
            assert "wrong" not in detail
        async with connected(url, api_key="right") as engine:
            await ask(engine, request())


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (np.full(65_536, 300, np.int32), "longer than the model's context length"),
        (np.array([1, 100_000], np.int32), "list of ids from 0 to"),
        (np.empty(0, np.int32), "not empty"),
    ],
)
async def test_what_the_engine_refuses_comes_with_its_words(simulator: Pair, ids: TokenIds, words: str) -> None:
    _, engine = simulator
    reason, detail = await reason_of(engine, request(ids))
    assert reason == "engine_refused"
    assert words in detail


async def test_the_engine_says_what_it_is_and_how_busy() -> None:
    async with simulated(time_scale=5.0) as (server, url), connected(url) as engine:
        info = await engine.info()
        assert (info.source, info.context_tokens, info.kv_capacity_tokens) == ("simulator", 65_536, 1_000_000)
        assert "simulator" in info.model
        tasks = [asyncio.create_task(ask(engine, request(prompt(9_000, 300 + n)))) for n in range(3)]
        await until(lambda: len(server.gpu.prefilling) == 1 and len(server.gpu.waiting) == 2)
        load = await engine.load()
        assert load is not None
        assert (load.running, load.waiting) == (1, 2)
        assert load.waiting_uncached_tokens >= 2 * 9_000
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def test_connections_are_used_again(simulator: Pair) -> None:
    _, engine = simulator
    for _ in range(5):
        await ask(engine, request())
    assert engine._http.opened == 2, "one for the calls, one on which the server was asked what it is"


async def test_closing_the_engine_ends_calls_in_flight_with_an_error() -> None:
    async with simulated(time_scale=20.0) as (server, url), connected(url) as engine:
        task = asyncio.create_task(reason_of(engine, request()))
        await until(lambda: len(server.gpu.running) == 1)
        await engine.close()
        assert (await task)[0] == "engine_broke"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b'data: {"error":{"message":"too long","code":400}}\n\ndata: [DONE]\n\n', "engine_refused"),
        (
            b'data: {"text":"","meta_info":{"finish_reason":{"type":"abort","message":"full","status_code":503}}}\n\n',
            "engine_overloaded",
        ),
        (b'data: {"text":"a","meta_info":{"finish_reason":null}}\n\ndata: [DONE]\n\n', "engine_broke"),
        (b"data: {nonsense\n\n", "engine_broke"),
        (b"", "engine_broke"),
    ],
)
async def test_what_a_server_puts_into_its_stream_is_told_apart(answer: bytes, reason: str) -> None:
    async def generate(asked: web.Request) -> web.Response:
        assert asked.headers["traceparent"].startswith("00-")
        return web.Response(body=answer, content_type="text/event-stream")

    app = web.Application()
    app.router.add_post("/generate", generate)

    async def abort(_: web.Request) -> web.Response:
        return web.Response()

    async def server_info(_: web.Request) -> web.Response:
        return web.json_response({"model_path": "m"})

    app.router.add_post("/abort_request", abort)
    app.router.add_get("/server_info", server_info)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with connected(f"http://127.0.0.1:{runner.addresses[0][1]}") as engine:
            assert (await reason_of(engine, request()))[0] == reason
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("by_priority", [True, False])
async def test_a_server_that_schedules_by_priority_is_told_which_calls_are_decisions(*, by_priority: bool) -> None:
    bodies: list[dict[str, object]] = []

    async def generate(asked: web.Request) -> web.Response:
        body = await asked.json()
        bodies.append(body)
        meta = {
            "prompt_tokens": len(body["input_ids"]),
            "finish_reason": {"type": "stop"},
            "output_token_ids_logprobs": [[[-1.0, 7, None]]],
        }
        event = orjson.dumps({"text": "hold 40 5", "meta_info": meta})
        return web.Response(body=b"data: " + event + b"\n\ndata: [DONE]\n\n" if body["stream"] else event, content_type="text/event-stream")

    async def server_info(_: web.Request) -> web.Response:
        return web.json_response({"model_path": "m", "enable_priority_scheduling": by_priority})

    app = web.Application()
    app.router.add_post("/generate", generate)
    app.router.add_get("/server_info", server_info)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with connected(f"http://127.0.0.1:{runner.addresses[0][1]}") as engine:
            await engine.info()
            await ask(engine, request())
            await engine.score(request(), np.array([7], dtype=np.int32))
            await ask(engine, replace(request(), background=True))
            await engine.warm("w" * 32, "A.X", prompt(64))
    finally:
        await runner.cleanup()
    assert [body.get("priority") for body in bodies] == ([1, 1, 0, 0] if by_priority else [None] * 4)


async def test_a_prompt_of_32k_tokens_goes_through_whole(simulator: Pair) -> None:
    _, engine = simulator
    _, _, usage = await ask(engine, request(prompt(32_768)))
    assert usage.prompt_tokens == prompt(32_768).size
    assert CALIBRATION.limits.chunk_tokens < 32_768
