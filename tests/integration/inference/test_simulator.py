"""The simulator's own API: what SGLang's clients, probes and scrapers find."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
from pathlib import Path

import aiohttp
import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from services.inference.engine import EngineError
from services.inference.simulator.server import Simulator

from .conftest import CALIBRATION, FACTS, TOKENIZER, connected, prompt, request, simulated, until


async def test_a_call_without_streaming_has_the_fields_that_sglang_gives() -> None:
    async with simulated() as (_, url), aiohttp.ClientSession(url) as http:
        said = await (await http.post("/generate", json={"text": FACTS, "rid": "r1"})).json()
    meta = said["meta_info"]
    assert orjson.loads(said["text"])["action"] == "buy"
    assert meta["id"] == "r1"
    assert meta["finish_reason"]["type"] == "stop"
    assert meta["completion_tokens"] == len(said["output_ids"])
    assert meta["spec_accept_length"] == meta["completion_tokens"] / meta["spec_verify_ct"]
    assert {"prompt_tokens", "cached_tokens", "e2e_latency", "queue_time"} <= meta.keys()


async def test_streamed_text_is_cumulative_and_ends_with_done() -> None:
    async with simulated() as (_, url), aiohttp.ClientSession(url) as http:
        body = await (await http.post("/generate", json={"text": FACTS, "stream": True})).read()
    lines = [line[6:] for line in body.split(b"\n\n") if line]
    assert lines.pop() == b"[DONE]"
    texts = [orjson.loads(line)["text"] for line in lines]
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(texts))
    assert len(texts) > 5


async def test_metrics_parse_and_add_up() -> None:
    async with simulated() as (_, url), aiohttp.ClientSession(url) as http:
        for _ in range(3):
            async with http.post("/generate", json={"text": FACTS}) as response:
                await response.read()
        async with http.get("/metrics") as response:
            samples = [sample for family in text_string_to_metric_families(await response.text()) for sample in family.samples]
    values = {sample.name: sample.value for sample in samples}
    assert values["sglang:num_requests_total"] == 3
    assert values["sglang:cached_tokens_total"] > 0
    assert values["sglang:num_running_reqs"] == 0
    assert values["sglang:max_total_num_tokens"] == 1_000_000


async def test_the_cache_is_flushed_only_when_nothing_runs() -> None:
    async with simulated(time_scale=5.0) as (server, url), aiohttp.ClientSession(url) as http:
        call = asyncio.create_task(http.post("/generate", json={"text": FACTS}))
        await until(lambda: len(server.gpu.running) == 1)
        async with http.post("/flush_cache") as response:
            assert response.status == 400
        async with http.post("/abort_request", json={"abort_all": True}) as response:
            assert response.status == 200
        assert (await (await call).json())["meta_info"]["finish_reason"]["type"] == "abort"
        async with http.post("/flush_cache") as response:
            assert response.status == 200
        assert server.gpu.tree.tokens == 0


async def test_an_empty_rid_aborts_nothing() -> None:
    async with simulated(time_scale=5.0) as (server, url), aiohttp.ClientSession(url) as http:
        call = asyncio.create_task(http.post("/generate", json={"text": FACTS}))
        await until(lambda: len(server.gpu.running) == 1)
        async with http.post("/abort_request", json={"rid": ""}) as response:
            assert response.status == 200
        assert len(server.gpu.running) == 1
        call.cancel()
        await asyncio.wait([call])


async def test_probes_and_metrics_need_no_key_and_the_rest_does() -> None:
    async with simulated(api_key="right") as (_, url), aiohttp.ClientSession(url) as http:
        expected = {"/health": 200, "/health_generate": 200, "/metrics": 200, "/server_info": 401, "/v1/loads": 401, "/model_info": 401}
        for path, status in expected.items():
            async with http.get(path) as response:
                assert (path, status) == (path, response.status)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "unexpected end"),
        (b"[1]", "not a JSON object"),
        (b"{}", "not empty"),
        (b'{"input_ids":[[1],[2]]}', "flat list"),
        (b'{"input_ids":["a"]}', "flat list"),
        (b'{"input_ids":[1],"sampling_params":{"max_new_tokens":-1}}', "max_new_tokens"),
        (b'{"input_ids":[1],"sampling_params":[1]}', "max_new_tokens"),
    ],
)
async def test_a_bad_request_is_answered_with_what_is_wrong(body: bytes, words: str) -> None:
    async with simulated() as (_, url), aiohttp.ClientSession(url) as http, http.post("/generate", data=body) as response:
        assert response.status == 400
        assert words in (await response.json())["error"]["message"]


async def test_two_calls_cannot_have_one_rid() -> None:
    async with simulated(time_scale=5.0) as (server, url), aiohttp.ClientSession(url) as http:
        call = asyncio.create_task(http.post("/generate", json={"text": FACTS, "rid": "r"}))
        await until(lambda: len(server.gpu.running) == 1)
        async with http.post("/generate", json={"text": FACTS, "rid": "r"}) as response:
            assert response.status == 400
        call.cancel()
        await asyncio.wait([call])


async def test_an_outage_cuts_the_calls_in_flight_and_ends_at_the_same_address() -> None:
    simulator = Simulator(CALIBRATION, TOKENIZER, time_scale=5.0)
    async with simulator.serving() as url, connected(url) as engine:
        call = engine.stream(request())
        await anext(call)
    assert simulator.gpu.idle()
    async with simulator.serving(port=int(url.rpartition(":")[2])) as again, connected(again) as engine:
        chunks = [chunk async for chunk in engine.stream(request())]
    assert again == url
    assert chunks[-1].usage is not None


async def test_its_end_cuts_a_call_that_nobody_gives_up() -> None:
    simulator = Simulator(CALIBRATION, TOKENIZER)
    async with contextlib.AsyncExitStack() as outer:
        async with asyncio.timeout(20), simulator.serving() as url:
            engine = await outer.enter_async_context(connected(url))
            async with aiohttp.ClientSession(url) as http, http.post("/pause_generation") as response:
                assert response.status == 200
            call = asyncio.create_task(engine.warm("w" * 32, "A.X", prompt(64)))
            await until(lambda: not simulator.gpu.idle())
        with pytest.raises(EngineError, match="engine_broke"):
            await call


async def test_times_follow_the_calibration() -> None:
    async with simulated(time_scale=0.2) as (_, url), aiohttp.ClientSession(url) as http:
        body = {"input_ids": [300] * 8_192, "sampling_params": {"max_new_tokens": 1}}
        said = await (await http.post("/generate", json=body)).json()
    assert said["meta_info"]["e2e_latency"] >= 0.2 * CALIBRATION.prefill_ms([(0, 8_192)]) / 1_000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--calibration", "nothing.json"], "calibration file 'nothing.json' cannot be read"),
        (["--tokenizer", "nothing.json"], "tokenizer file 'nothing.json' cannot be read"),
        (["--kv-capacity-tokens", "0"], "KV capacity of 0"),
        (["--time-scale", "-1"], "must not be negative"),
    ],
)
async def test_the_command_says_what_is_wrong(arguments: list[str], words: str) -> None:
    command = [sys.executable, "-m", "services.inference.simulator", *arguments]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, errors = await process.communicate()
    assert process.returncode
    assert words in errors.decode()
    assert "Traceback" not in errors.decode()


async def test_the_tokenizer_can_be_trained_again_to_the_same_file(tmp_path: Path) -> None:
    data = Path("services/inference/data")
    arguments = ["--corpus", str(data / "tokenizer-corpus.txt"), "--out", str(tmp_path / "tokenizer.json")]
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "services.inference.simulator.train_tokenizer", *arguments)
    assert await process.wait() == 0
    assert (tmp_path / "tokenizer.json").read_bytes() == (data / "tokenizer.json").read_bytes()
