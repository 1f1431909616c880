"""What every engine that takes token ids keeps to: SGLang's API (the simulator), llama.cpp (the real one), vLLM (a fake of its API)."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import jsonschema
import numpy as np
import orjson
import pytest
import pytest_asyncio
from aiohttp import web

from services.fusion.decide.answer import ANSWER_SCHEMA, AnswerReader, answer_regex, line_of
from services.inference.engine import Chunk, Engine, EngineError, EngineRequest, Sampling, Scores, TokenIds, Usage
from services.inference.http_engine import HttpEngine
from services.inference.llamacpp_client import LlamaCppEngine
from services.inference.llamacpp_client import _body as llamacpp_body
from services.inference.sglang_client import SGLangEngine, generate_body
from services.inference.simulator.server import Simulator
from services.inference.vllm_client import VllmEngine

from . import local
from .conftest import CALIBRATION, CLOCK, FACTS, TOKENIZER, request
from .vllm_fake import VllmFake

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True)
class Subject:
    """A running server with its client, and what the suite has to know about it."""

    engine: HttpEngine
    prompt: Callable[[str], TokenIds]
    """A prompt that asks for a decision; the text makes it another from its first token on."""
    labels: TokenIds
    idle: Callable[[], Awaitable[bool]]
    restart: Callable[[], contextlib.AbstractAsyncContextManager[None]]
    """Ends the server, and starts it on the same address when the block ends."""
    uncounted: int
    """Tokens at a prompt's end that are never found in the cache."""
    slowed: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
    """Keeps an answer from ending after its first piece, where it would be over at once."""


@contextlib.asynccontextmanager
async def _simulator() -> AsyncIterator[Subject]:
    server = Simulator(CALIBRATION, TOKENIZER, time_scale=0.3)
    stack = contextlib.AsyncExitStack()
    url = await stack.enter_async_context(server.serving())
    engine = SGLangEngine(url, CLOCK, scores=True)

    def prompt(first: str) -> TokenIds:
        return TOKENIZER.encode(first + "bars " * 40 + FACTS)

    async def idle() -> bool:
        return not server.gpu.running and not server.gpu.waiting and not server.gpu.prefilling

    @contextlib.asynccontextmanager
    async def restart() -> AsyncIterator[None]:
        await stack.aclose()
        server.gpu.flush()
        yield
        await stack.enter_async_context(server.serving(port=int(url.rpartition(":")[2])))

    labels = np.array([TOKENIZER.encode(word)[0] for word in ("buy", "sell", "hold")], np.int32)
    try:
        yield Subject(engine, prompt, labels, idle, restart, 2)
    finally:
        await engine.close()
        await stack.aclose()


@contextlib.asynccontextmanager
async def _llamacpp() -> AsyncIterator[Subject]:
    async with local.running(symbols=2, context_tokens=1_024) as server:
        engine = LlamaCppEngine(server.url, CLOCK)
        vocabulary = local.tokenizer()
        start, end = vocabulary.special_id("<|im_start|>"), vocabulary.special_id("<|im_end|>")

        def prompt(first: str) -> TokenIds:
            user, newline, reply = (vocabulary.encode(text) for text in (f"user\n{first}Buy or sell?{FACTS}", "\n", "assistant\n"))
            return np.concatenate([[start], user, [end], newline, [start], reply]).astype(np.int32)

        async def idle() -> bool:
            async with aiohttp.ClientSession() as session, session.get(f"{server.url}/slots") as answer:
                slots: list[dict[str, Any]] = orjson.loads(await answer.read())
                return not any(slot["is_processing"] for slot in slots)

        @contextlib.asynccontextmanager
        async def restart() -> AsyncIterator[None]:
            await server.kill()
            yield
            await server.start()

        labels = np.array([vocabulary.encode(word)[0] for word in ("buy", "sell", "hold")], np.int32)
        try:
            yield Subject(engine, prompt, labels, idle, restart, 1)
        finally:
            await engine.close()


@contextlib.asynccontextmanager
async def _vllm() -> AsyncIterator[Subject]:
    fake = VllmFake(pieces=('{"action":"exit",', '"conviction":50,"horizon":5,', '"rationale":"', *("because " for _ in range(10)), '"}'))
    stack = contextlib.AsyncExitStack()
    engine = VllmEngine(await stack.enter_async_context(fake.serving()), CLOCK)

    def prompt(first: str) -> TokenIds:
        return TOKENIZER.encode(first + "bars " * 40 + FACTS)

    async def idle() -> bool:
        return fake.running == 0

    @contextlib.asynccontextmanager
    async def restart() -> AsyncIterator[None]:
        await stack.aclose()
        yield
        await stack.enter_async_context(fake.serving())

    @contextlib.contextmanager
    def slowed() -> Iterator[None]:
        fake.hold = asyncio.Event()
        try:
            yield
        finally:
            fake.hold = None

    try:
        yield Subject(engine, prompt, np.array([5, 6, 7], np.int32), idle, restart, 1, slowed)
    finally:
        await engine.close()
        await stack.aclose()


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=[_simulator, _llamacpp, _vllm], ids=["sglang", "llamacpp", "vllm"])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    async with request.param() as running:
        yield running


async def ask(engine: Engine, asked: EngineRequest) -> tuple[str, list[Chunk], Usage]:
    async with contextlib.aclosing(engine.stream(asked)) as stream:
        chunks = [chunk async for chunk in stream]
    usage = chunks[-1].usage
    assert usage is not None
    return "".join(chunk.text for chunk in chunks), chunks, usage


async def idle(subject: Subject) -> None:
    async with asyncio.timeout(60):
        while not await subject.idle():  # noqa: ASYNC110 - servers have no event for it
            await asyncio.sleep(0.02)


async def test_a_script_of_decisions_is_answered_each_by_the_contract_and_names_the_engine(subject: Subject) -> None:
    info = await subject.engine.info()
    assert info.name.startswith(subject.engine.kind)
    for symbol in ("ONE", "TWO", "ONE"):
        ids = subject.prompt(f"script {symbol} ")
        text, chunks, usage = await ask(subject.engine, request(ids, schema=ANSWER_SCHEMA, left_ms=120_000, affinity=symbol))
        jsonschema.validate(orjson.loads(text), orjson.loads(ANSWER_SCHEMA))
        assert (usage.prompt_tokens, usage.finish_reason) == (ids.size, "stop")
        assert [chunk.engine for chunk in chunks if chunk.engine is not None] == [info]
        assert chunks[0].engine == info
    assert usage.cached_tokens is not None
    assert usage.cached_tokens >= ids.size - subject.uncounted


@pytest.mark.parametrize("rationale", [False, True])
async def test_an_answer_under_a_regular_expression_is_a_line_and_a_decision(subject: Subject, *, rationale: bool) -> None:
    regex = answer_regex(rationale=rationale)
    asked = replace(request(subject.prompt("line "), left_ms=120_000), sampling=Sampling(200, 0.0, regex=regex))
    text, _, usage = await ask(subject.engine, asked)
    assert re.fullmatch(regex, text)
    reader = AnswerReader(thinking=False)
    reader.feed(text)
    assert line_of(reader.finish(usage.finish_reason)) == text.partition("\n")[0].rstrip()


async def test_the_first_token_of_an_answer_has_the_log_probabilities_of_the_labels_that_were_asked_for(subject: Subject) -> None:
    ids, labels = subject.prompt("first token "), subject.labels
    if subject.engine.kind == "llamacpp":
        # It lists the likeliest tokens, among which an untrained model's has no reason to have ours: take its own first one.
        labels = local.tokenizer().encode((await ask(subject.engine, request(ids, most=1, left_ms=120_000)))[0])[:1]
    scores = await subject.engine.score(request(ids, left_ms=120_000), labels)
    asked = replace(request(ids, most=8, left_ms=120_000), labels=labels)
    _, chunks, _ = await ask(subject.engine, asked)
    (found,) = [chunk.logprobs for chunk in chunks if chunk.logprobs is not None]
    np.testing.assert_allclose(found, scores.logprobs, atol=0.05)
    _, unasked, _ = await ask(subject.engine, request(ids, most=8, left_ms=120_000))
    assert all(chunk.logprobs is None for chunk in unasked)


async def test_a_longest_answer_is_cut_off(subject: Subject) -> None:
    usage = (await ask(subject.engine, request(subject.prompt("short "), most=2, left_ms=120_000)))[2]
    assert (usage.output_tokens, usage.finish_reason) == (2, "length")


async def test_an_answer_ends_before_the_text_to_stop_at(subject: Subject) -> None:
    asked = request(subject.prompt("stop "), schema=ANSWER_SCHEMA, left_ms=120_000)
    whole = (await ask(subject.engine, asked))[0]
    stop = '"horizon"'
    stopped = replace(asked, rid="a" * 32, sampling=replace(asked.sampling, stop=stop))
    text, _, usage = await ask(subject.engine, stopped)
    assert stop in whole or '"action":"abstain"' in whole
    assert stop not in text
    assert whole.startswith(text)
    assert usage.finish_reason == "stop"


async def test_the_same_seed_gives_the_same_sample(subject: Subject) -> None:
    asked = request(subject.prompt("seed "), most=24, left_ms=120_000)
    sampled = [
        (await ask(subject.engine, replace(asked, rid=f"{n:032x}", sampling=replace(asked.sampling, temperature=0.9, top_p=0.95, seed=7))))[
            0
        ]
        for n in (1, 2)
    ]
    assert sampled[0] == sampled[1]


async def test_a_thought_is_closed_and_the_answer_follows_it_from_the_cached_prompt(subject: Subject) -> None:
    """As mode `deep` asks: a thought without a grammar, cut after its tokens, and then the answer under one."""
    asked = request(subject.prompt("thought "), most=8, left_ms=120_000)
    thought, _, first = await ask(subject.engine, replace(asked, sampling=replace(asked.sampling, stop="</think>")))
    assert first.output_tokens <= 8
    tokenizer = local.tokenizer() if subject.engine.kind == "llamacpp" else TOKENIZER
    ids = np.concatenate([asked.input_ids, tokenizer.encode(f"{thought.strip()}\n</think>\n\n")])
    answering = replace(asked, rid="b" * 32, input_ids=ids, sampling=replace(asked.sampling, max_new_tokens=200, json_schema=ANSWER_SCHEMA))
    text, _, usage = await ask(subject.engine, answering)
    jsonschema.validate(orjson.loads(text), orjson.loads(ANSWER_SCHEMA))
    assert usage.cached_tokens is not None
    assert usage.cached_tokens >= asked.input_ids.size - subject.uncounted


async def test_what_is_sent_ahead_is_found_in_the_cache(subject: Subject) -> None:
    ids = subject.prompt("ahead ")
    assert (await subject.engine.warm("f" * 32, "AHEAD", ids)).prompt_tokens == ids.size
    usage = (await ask(subject.engine, request(ids, most=1, left_ms=120_000, affinity="AHEAD")))[2]
    assert usage.cached_tokens is not None
    assert usage.cached_tokens >= ids.size - subject.uncounted


async def test_a_call_that_is_given_up_ends_on_the_server(subject: Subject) -> None:
    stream = subject.engine.stream(request(subject.prompt("abort "), most=500, left_ms=120_000))
    async for chunk in stream:
        if chunk.text:
            break
    await stream.aclose()
    await idle(subject)


async def test_after_a_restart_it_is_asked_again_what_it_is_and_answers_from_an_empty_cache(subject: Subject) -> None:
    ids = subject.prompt("restart ")
    await ask(subject.engine, request(ids, most=1, left_ms=120_000))
    async with subject.restart():
        with pytest.raises(EngineError, match=r"engine_unreachable|engine_broke"):
            await ask(subject.engine, request(ids, most=1, left_ms=120_000))
        assert subject.engine._info is None
    _, chunks, usage = await ask(subject.engine, request(ids, most=1, left_ms=120_000))
    assert usage.cached_tokens == 0
    assert chunks[0].engine == await subject.engine.info()


async def test_a_server_that_ends_in_the_middle_of_an_answer_is_an_error_and_the_next_call_is_answered(subject: Subject) -> None:
    ids = subject.prompt("middle ")
    stream = subject.engine.stream(request(ids, most=500, left_ms=120_000))
    with subject.slowed():
        async for chunk in stream:
            if chunk.text:
                break
        async with subject.restart():
            with pytest.raises(EngineError, match=r"engine_broke|engine_unreachable"):
                [chunk async for chunk in stream if chunk.usage is None]
    assert (await ask(subject.engine, request(ids, most=1, left_ms=120_000)))[2].output_tokens == 1


async def test_a_prompt_past_the_context_is_a_cut_prompt_before_it_is_sent(subject: Subject) -> None:
    context = (await subject.engine.info()).context_tokens
    assert context is not None
    ids = np.full(context + 1, 300, np.int32)
    with pytest.raises(EngineError, match=f"prompt_cut: .* reads {context:,} tokens at most, and the prompt has {context + 1:,}"):
        await ask(subject.engine, request(ids, most=1))


async def test_label_tokens_have_log_probabilities_in_their_order(subject: Subject) -> None:
    ids = subject.prompt("labels ")
    scores = await subject.engine.score(request(ids, left_ms=120_000), subject.labels)
    backwards = await subject.engine.score(request(ids, left_ms=120_000), subject.labels[::-1].copy())
    assert isinstance(scores, Scores)
    assert scores.engine == await subject.engine.info()
    assert scores.usage.prompt_tokens == ids.size
    assert (scores.logprobs < 0).all()
    assert np.exp(scores.logprobs).sum() <= 1 + 1e-6
    if subject.engine.kind != "vllm":  # whose fake scores by position
        np.testing.assert_allclose(backwards.logprobs[::-1], scores.logprobs, atol=0.05)


@contextlib.asynccontextmanager
async def _cutting(kind: type[HttpEngine], path: str, event: dict[str, Any], info: dict[str, dict[str, Any]]) -> AsyncIterator[HttpEngine]:
    """Yield a client of `kind` for a server that answers every call with one good event."""

    async def answer(asked: web.Request) -> web.Response:
        streamed = orjson.loads(await asked.read()).get("stream")
        body = orjson.dumps(event)
        return web.Response(body=b"data: " + body + b"\n\n" if streamed else body)

    async def said(asked: web.Request) -> web.Response:
        return web.json_response(info[asked.path])

    app = web.Application(client_max_size=1 << 26)
    app.router.add_post(path, answer)
    app.router.add_post("/abort_request", said)
    for page in info:
        app.router.add_get(page, said)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    engine = kind(f"http://127.0.0.1:{runner.addresses[0][1]}", CLOCK)
    try:
        yield engine
    finally:
        await engine.close()
        await runner.cleanup()


_ANSWER = '{"action":"exit","conviction":50,"horizon":5,"rationale":""}'
_CUT: list[tuple[type[HttpEngine], str, dict[str, Any], dict[str, dict[str, Any]]]] = [
    (
        SGLangEngine,
        "/generate",
        {"text": _ANSWER, "meta_info": {"prompt_tokens": 4_096, "completion_tokens": 20, "finish_reason": {"type": "stop"}}},
        {"/server_info": {"model_path": "m"}, "/abort_request": {}},
    ),
    (
        LlamaCppEngine,
        "/completion",
        {"content": _ANSWER, "stop": True, "stop_type": "eos", "tokens_evaluated": 4_096, "truncated": True},
        {"/props": {"total_slots": 1}},
    ),
    (
        VllmEngine,
        "/v1/completions",
        {"choices": [{"text": _ANSWER, "finish_reason": "stop"}], "usage": {"prompt_tokens": 4_096, "completion_tokens": 20}},
        {"/v1/models": {"data": [{"id": "m"}]}},
    ),
]


@pytest.mark.parametrize(("kind", "path", "event", "info"), _CUT, ids=["sglang", "llamacpp", "vllm"])
async def test_a_server_that_read_less_than_it_was_sent_gives_no_answer(
    kind: type[HttpEngine], path: str, event: dict[str, Any], info: dict[str, dict[str, Any]]
) -> None:
    texts: list[str] = []

    async def read(engine: HttpEngine, asked: EngineRequest) -> None:
        async for chunk in engine.stream(asked):
            texts.append(chunk.text)  # noqa: PERF401 - what came before an error counts

    async with _cutting(kind, path, event, info) as engine:
        whole = request(np.full(4_096, 300, np.int32))
        assert (await ask(engine, whole))[0] == _ANSWER
        longer = replace(whole, rid="e" * 32, input_ids=np.full(6_162, 300, np.int32))
        with pytest.raises(EngineError, match=r"prompt_cut: .* read 4,096 of the prompt's 6,162 tokens"):
            await read(engine, longer)
        with pytest.raises(EngineError, match="prompt_cut"):
            await engine.warm("d" * 32, "A.X", np.full(6_162, 300, np.int32))
        with pytest.raises(EngineError, match="prompt_cut"):
            await engine.score(longer, np.array([1, 2], np.int32))
    assert "".join(texts) == ""


_LONG = "/models/" + "snapshot/" * 40 + "the-model"
_ODD: list[tuple[type[HttpEngine], str, dict[str, Any], dict[str, dict[str, Any]]]] = [
    (
        SGLangEngine,
        "/generate",
        {
            "text": _ANSWER,
            "meta_info": {
                "prompt_tokens": 64.0,
                "completion_tokens": "20",
                "cached_tokens": -3,
                "spec_accept_length": -1,
                "queue_time": -0.5,
                "finish_reason": {"type": "stop"},
            },
        },
        {"/server_info": {"model_path": _LONG, "max_total_num_tokens": "many", "context_length": -5}, "/abort_request": {}},
    ),
    (
        LlamaCppEngine,
        "/completion",
        {"content": _ANSWER, "stop": True, "stop_type": "eos", "tokens_evaluated": None, "tokens_predicted": -1, "timings": []},
        {"/props": {"total_slots": 0, "model_path": "x" * 400, "default_generation_settings": {"n_ctx": "8192"}}},
    ),
    (
        VllmEngine,
        "/v1/completions",
        {"choices": [{"text": _ANSWER, "finish_reason": "stop"}], "usage": {"prompt_tokens": None, "prompt_tokens_details": 7}},
        {"/v1/models": {"data": [{"id": _LONG, "max_model_len": "8192"}]}},
    ),
]


@pytest.mark.parametrize(("kind", "path", "event", "info"), _ODD, ids=["sglang", "llamacpp", "vllm"])
async def test_a_good_answer_is_not_lost_to_odd_words_about_it(
    kind: type[HttpEngine], path: str, event: dict[str, Any], info: dict[str, dict[str, Any]]
) -> None:
    """Signals and audit have room for 256 characters of a model's name, and for no negative counts."""
    async with _cutting(kind, path, event, info) as engine:
        text, chunks, usage = await ask(engine, request(np.full(64, 300, np.int32)))
    assert text == _ANSWER
    said = chunks[0].engine
    assert said is not None
    assert 0 < len(said.model) <= 256
    assert (_LONG if kind is not LlamaCppEngine else "x" * 400).endswith(said.model)
    assert (usage.prompt_tokens, usage.accept_length, usage.queue_ms) == (64, None, None)
    assert usage.output_tokens >= 0
    assert usage.cached_tokens is None


async def test_a_vllm_that_scores_no_given_tokens_says_which_one_does() -> None:
    async with VllmFake(scores=False).serving() as url:
        engine = VllmEngine(url, CLOCK)
        with pytest.raises(EngineError, match="use a vLLM that takes logprob_token_ids"):
            await engine.score(request(), np.array([5, 6], np.int32))
        await engine.close()


async def test_vllm_is_sent_ids_and_a_schema_without_free_white_space() -> None:
    fake = VllmFake()
    async with fake.serving() as url:
        engine = VllmEngine(f"{url}/v1/", CLOCK)
        ids = TOKENIZER.encode(FACTS)
        await ask(engine, request(ids, schema=ANSWER_SCHEMA, most=50))
        await engine.close()
    (body,) = fake.bodies
    assert not {"top_p", "seed", "stop"} & body.keys()
    assert body["prompt"] == ids.tolist()
    assert body["structured_outputs"] == {"json": orjson.loads(ANSWER_SCHEMA), "disable_any_whitespace": True}
    assert (body["max_tokens"], body["temperature"], body["stream_options"]["continuous_usage_stats"]) == (50, 0.0, True)


async def test_sampling_reaches_every_server_by_the_names_that_it_has() -> None:
    """top_p and the seed go along only above temperature 0: some servers refuse what they do not know."""
    sampling = Sampling(50, 0.9, top_p=0.95, seed=7, stop="</think>")
    asked = replace(request(), sampling=sampling)
    fake = VllmFake()
    async with fake.serving() as url:
        engine = VllmEngine(url, CLOCK)
        await ask(engine, asked)
        await engine.close()
    (body,) = fake.bodies
    assert (body["temperature"], body["top_p"], body["seed"], body["stop"]) == (0.9, 0.95, 7, "</think>")
    said = orjson.loads(generate_body(asked))["sampling_params"]
    assert said == {"max_new_tokens": 50, "temperature": 0.9, "top_p": 0.95, "sampling_seed": 7, "stop": "</think>"}
    said = orjson.loads(llamacpp_body(asked, None))
    assert (said["temperature"], said["top_p"], said["seed"], said["stop"]) == (0.9, 0.95, 7, ["</think>"])
    greedy = replace(asked, sampling=Sampling(50, seed=7))
    assert orjson.loads(generate_body(greedy))["sampling_params"] == {"max_new_tokens": 50, "temperature": 0.0}
    assert "seed" not in orjson.loads(llamacpp_body(greedy, None))
