"""The OpenAI-compatible client against a small server that speaks chat completions."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import orjson
import pytest
from aiohttp import web

from services.inference.engine import EngineError, Sampling, Usage
from services.inference.openai_client import OpenAIEngine

from .conftest import CLOCK, prompt, request, until


@dataclass
class Peer:
    """Writes `pieces`, one an event, then usage if `counts`; `hold` keeps it from going on after the first."""

    pieces: list[str] = field(default_factory=lambda: ['{"action":', '"hold"', "}"])
    counts: bool = True
    finish: str | None = "stop"
    hold: asyncio.Event | None = None
    events: Sequence[object] | None = None
    """Sent as they are, in place of all the others; bytes are sent raw."""
    system_role: bool = True
    refuses: str | None = None
    """Refuse a body with this key."""
    reads: int = 90
    """Prompt tokens that it says it has read."""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    left: int = 0

    async def models(self, asked: web.Request) -> web.Response:
        if asked.headers.get("Authorization") != "Bearer right":
            return web.json_response({"error": {"message": "no such key"}}, status=401)
        return web.json_response({"object": "list", "data": [{"id": "some-model", "max_model_len": 32_768}]})

    async def complete(self, asked: web.Request) -> web.StreamResponse:
        self.bodies.append(orjson.loads(await asked.read()))
        if self.refuses in self.bodies[-1]:
            return web.json_response({"error": {"message": f"unknown field {self.refuses}"}}, status=400)
        if not self.system_role and self.bodies[-1]["messages"][0]["role"] == "system":
            return web.json_response({"error": {"message": "System role not supported"}}, status=400)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(asked)
        if self.events is not None:
            for event in self.events:
                await response.write(b"data: " + (event if isinstance(event, bytes) else orjson.dumps(event)) + b"\n\n")
            await response.write(b"data: [DONE]\n\n")
            return response
        try:
            await self._say(response, {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
            for piece in self.pieces:
                await self._say(response, {"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]})
                if self.hold is not None:
                    await self.hold.wait()
            await self._say(response, {"choices": [{"index": 0, "delta": {}, "finish_reason": self.finish}]})
            if self.counts:
                usage = {"prompt_tokens": self.reads, "completion_tokens": 9, "prompt_tokens_details": {"cached_tokens": 64}}
                await self._say(response, {"choices": [], "usage": usage})
            await response.write(b"data: [DONE]\n\n")
        except asyncio.CancelledError:
            self.left += 1
            raise
        return response

    @staticmethod
    async def _say(response: web.StreamResponse, said: dict[str, Any]) -> None:
        await response.write(b"data: " + orjson.dumps(said) + b"\n\n")

    @contextlib.asynccontextmanager
    async def engine(
        self, *, path: str = "", key: str = "right", model: str | None = None, no_think: str | None = None, own_tokenizer: bool = False
    ) -> AsyncIterator[OpenAIEngine]:
        app = web.Application()
        app.router.add_get("/v1/models", self.models)
        app.router.add_post("/v1/chat/completions", self.complete)
        runner = web.AppRunner(app, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        engine = OpenAIEngine(
            f"http://127.0.0.1:{runner.addresses[0][1]}{path}",
            CLOCK,
            model=model,
            api_key=key,
            no_think=no_think,
            own_tokenizer=own_tokenizer,
        )
        try:
            yield engine
        finally:
            await engine.close()
            await runner.cleanup()


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/"])
async def test_the_prompt_goes_out_as_text_with_its_schema_and_the_answer_comes_in_pieces(path: str) -> None:
    peer = Peer()
    async with peer.engine(path=path) as engine:
        chunks = [chunk async for chunk in engine.stream(request(schema='{"type":"object"}', most=50))]
    assert "".join(chunk.text for chunk in chunks) == '{"action":"hold"}'
    usage = chunks[-1].usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.output_tokens, usage.cached_tokens, usage.finish_reason) == (90, 9, 64, "stop")
    (body,) = peer.bodies
    assert body["model"] == "some-model"
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert (body["max_tokens"], body["stream_options"]) == (50, {"include_usage": True})


async def test_a_sampled_call_says_how_and_a_greedy_one_only_that_it_is_greedy() -> None:
    peer = Peer()
    async with peer.engine() as engine:
        for sampling in (Sampling(50, 0.6, top_p=0.95, seed=7, stop="</think>"), Sampling(50, seed=7)):
            _ = [chunk async for chunk in engine.stream(replace(request(), sampling=sampling))]
    sampled, greedy = peer.bodies
    assert (sampled["temperature"], sampled["top_p"], sampled["seed"]) == (0.6, 0.95, 7)
    assert greedy["temperature"] == 0
    assert not {"top_p", "seed", "stop"} & greedy.keys()


async def test_a_template_without_a_system_role_is_told_the_rules_in_the_users_message() -> None:
    """The server's refusal is learnt once; the prompt loses none of its text."""
    peer = Peer(system_role=False)
    async with peer.engine() as engine:
        for _again in range(2):
            text = "".join([chunk.text async for chunk in engine.stream(request())])
            assert text == '{"action":"hold"}'
        first, second, third = peer.bodies
    assert [message["role"] for message in first["messages"]] == ["system", "user"]
    assert second["messages"] == third["messages"]
    (merged,) = second["messages"]
    assert merged["role"] == "user"
    assert merged["content"] == "\n".join(message["content"] for message in first["messages"])


async def test_calls_that_are_refused_at_the_same_time_are_all_sent_again() -> None:
    peer = Peer(system_role=False)

    async def answered(engine: OpenAIEngine) -> str:
        return "".join([chunk.text async for chunk in engine.stream(request())])

    async with peer.engine() as engine:
        await engine.info()
        assert await asyncio.gather(*(answered(engine) for _ in range(3))) == ['{"action":"hold"}'] * 3


async def test_without_usage_the_pieces_are_counted() -> None:
    async with Peer(counts=False).engine() as engine:
        chunks = [chunk async for chunk in engine.stream(request())]
    usage = chunks[-1].usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.output_tokens, usage.cached_tokens) == (prompt(64).size, 3, None)


async def test_a_stream_without_an_end_is_an_error() -> None:
    async with Peer(finish=None).engine() as engine:
        with pytest.raises(EngineError, match="engine_broke"):
            _ = [chunk async for chunk in engine.stream(request())]


async def test_the_deadline_closes_the_connection() -> None:
    peer = Peer(hold=asyncio.Event())
    async with peer.engine(model="some-model") as engine:
        with pytest.raises(EngineError, match="engine_timeout"):
            _ = [chunk async for chunk in engine.stream(request(left_ms=300))]
        await until(lambda: peer.left == 1)


async def test_the_model_is_the_first_listed_or_the_one_named_if_it_is_there() -> None:
    async with Peer().engine() as engine:
        info = await engine.info()
        assert (info.model, info.context_tokens, info.source, engine.capabilities.token_ids) == ("some-model", 32_768, "llm", False)
    async with Peer().engine(model="other") as engine:
        with pytest.raises(EngineError, match="no model 'other', but some-model"):
            await engine.info()


async def test_a_wrong_key_is_refused_in_the_servers_words() -> None:
    async with Peer().engine(key="wrong") as engine:
        with pytest.raises(EngineError, match=r"engine_refused: .* 401: no such key; check engine\.api_key"):
            await engine.info()


ANSWER = '{"action":"hold"}'


def said(content: object = None, *, finish: object = None, **delta: object) -> dict[str, Any]:
    """Return an event of a stream."""
    return {"choices": [{"index": 0, "delta": {"content": content, **delta}, "finish_reason": finish}]}


async def answer_of(events: list[object], *, mode: Literal["fast", "deep"] = "fast") -> tuple[str, Usage]:
    async with Peer(events=events).engine() as engine:
        chunks = [chunk async for chunk in engine.stream(replace(request(), mode=mode))]
    usage = chunks[-1].usage
    assert usage is not None
    return "".join(chunk.text for chunk in chunks), usage


@pytest.mark.parametrize(
    "events",
    [
        [said(ANSWER) | {"error": None}, said("", finish="stop") | {"error": None}],
        [{"choices": [None]}, said(ANSWER), {"choices": [None, said("", finish="stop")["choices"][0]]}],
        [{"choices": None}, {"choices": {}}, {"choices": []}, {}, b"null", said(ANSWER, finish="stop"), b"null"],
        [said([{"type": "text", "text": ANSWER[:6]}, {"type": "text", "text": ANSWER[6:]}]), said([], finish="stop")],
        [said([ANSWER[:6], None, ANSWER[6:]], finish="stop")],
        [{"choices": [{"delta": None}]}, said(ANSWER), {"choices": [{"delta": [], "finish_reason": "stop"}]}],
        [said(ANSWER, tool_calls=None, refusal=None), said(None, finish="stop"), {"choices": [], "usage": None}],
    ],
)
async def test_a_usable_answer_is_not_lost_to_nulls_lists_and_empty_events(events: list[object]) -> None:
    text, usage = await answer_of(events)
    assert (text, usage.finish_reason, usage.prompt_tokens) == (ANSWER, "stop", request().input_ids.size)


@pytest.mark.parametrize(
    "usage",
    [
        None,
        [],
        "90",
        {"prompt_tokens": None, "completion_tokens": None},
        {"prompt_tokens": "90", "completion_tokens": [1], "prompt_tokens_details": None},
        {"prompt_tokens": -1, "completion_tokens": True, "prompt_tokens_details": {"cached_tokens": "all"}},
        {"prompt_tokens": 1.5, "prompt_tokens_details": [1]},
    ],
)
async def test_usage_that_is_no_count_is_no_usage(usage: object) -> None:
    text, counted = await answer_of([said(ANSWER, finish="stop"), {"choices": [], "usage": usage}])
    assert text == ANSWER
    assert (counted.prompt_tokens, counted.output_tokens, counted.cached_tokens) == (request().input_ids.size, 1, None)


@pytest.mark.parametrize(
    "event", [b"[1]", b'"text"', b"7", b"{nonsense", b'{"error":"out of memory"}', b'{"error":{"code":500}}', b'{"error":[]}']
)
async def test_what_is_no_event_is_one_clear_error(event: bytes) -> None:
    with pytest.raises(EngineError, match="engine_broke"):
        await answer_of([said(ANSWER), event, said("", finish="stop")])


@pytest.mark.parametrize(
    ("events", "fast", "deep"),
    [
        (
            [said(None, reasoning_content="up "), said(None, reasoning_content="then"), said(ANSWER, finish="stop")],
            ANSWER,
            f"up then</think>{ANSWER}",
        ),
        ([said("", reasoning="up"), said(ANSWER[:4]), said(ANSWER[4:], finish="stop")], ANSWER, f"up</think>{ANSWER}"),
        ([said("<thi"), said("nk>\nup\n</th"), said(f"ink>\n{ANSWER}", finish="stop")], f"\n{ANSWER}", f"<think>\nup\n</think>\n{ANSWER}"),
        ([said("up {or} down"), said(f"</think>{ANSWER}", finish="stop")], ANSWER, f"up {{or}} down</think>{ANSWER}"),
        ([said(" "), said(ANSWER, finish="stop")], f" {ANSWER}", f"</think> {ANSWER}"),
        ([said("<think>\n\n</think>\n\n"), said(ANSWER, finish="stop")], f"\n\n{ANSWER}", f"<think>\n\n</think>\n\n{ANSWER}"),
    ],
)
async def test_a_thought_stands_before_a_deep_answer_and_not_before_a_fast_one_wherever_the_server_puts_it(
    events: list[object], fast: str, deep: str
) -> None:
    assert (await answer_of(events))[0] == fast
    assert (await answer_of(events, mode="deep"))[0] == deep


async def test_fast_switches_thinking_off_and_deep_on() -> None:
    peer = Peer()
    async with peer.engine(no_think=" /no_think") as engine:
        for mode in ("fast", "deep"):
            _ = [chunk async for chunk in engine.stream(replace(request(), mode=mode))]
    assert [body["chat_template_kwargs"] for body in peer.bodies] == [{"enable_thinking": False}, {"enable_thinking": True}]
    assert [body["messages"][1]["content"].endswith(" /no_think") for body in peer.bodies] == [True, False]


async def test_a_server_that_takes_no_template_options_is_asked_without_them() -> None:
    peer = Peer(refuses="chat_template_kwargs")
    async with peer.engine() as engine:
        for _ in range(2):
            chunks = [chunk async for chunk in engine.stream(request())]
            assert "".join(chunk.text for chunk in chunks) == ANSWER
    assert ["chat_template_kwargs" in body for body in peer.bodies] == [True, False, False]


async def test_a_server_that_takes_no_seed_is_asked_without_one_and_one_that_takes_no_temperature_is_an_error() -> None:
    sampled = replace(request(), sampling=Sampling(50, 0.6, top_p=0.95, seed=7))
    peer = Peer(refuses="seed")
    async with peer.engine() as engine:
        assert "".join([chunk.text async for chunk in engine.stream(sampled)]) == ANSWER
    assert ["seed" in body for body in peer.bodies] == [True, False]
    peer = Peer(refuses="temperature")
    async with peer.engine() as engine:
        with pytest.raises(EngineError, match=r"engine_refused: .*unknown field temperature"):
            _ = [chunk async for chunk in engine.stream(sampled)]
    assert len(peer.bodies) == 1


async def test_nothing_of_an_answer_to_a_cut_prompt_comes_out() -> None:
    cut = [said(ANSWER), said("", finish="stop"), {"choices": [], "usage": {"prompt_tokens": 4_096, "completion_tokens": 3}}]
    texts: list[str] = []

    async def read(engine: OpenAIEngine) -> None:
        async for chunk in engine.stream(request(prompt(6_162 - prompt(0).size))):
            texts.append(chunk.text)  # noqa: PERF401 - what came before an error counts

    async with Peer(events=cut).engine() as engine:
        with pytest.raises(EngineError, match=r"prompt_cut: .* read 4,096 of the prompt's 6,162 tokens"):
            await read(engine)
    assert "".join(texts) == ""


async def test_with_the_models_own_tokenizer_a_cut_of_a_few_tokens_is_seen() -> None:
    sent = prompt(4_000)
    cut = [said(ANSWER, finish="stop"), {"choices": [], "usage": {"prompt_tokens": sent.size * 95 // 100}}]
    async with Peer(events=cut).engine(own_tokenizer=True) as engine:
        with pytest.raises(EngineError, match="prompt_cut"):
            _ = [chunk async for chunk in engine.stream(request(sent))]
    async with Peer(events=cut).engine() as engine:
        assert [chunk async for chunk in engine.stream(request(sent))]


async def test_an_answer_streams_once_a_prompt_of_its_length_was_read_whole() -> None:
    peer = Peer()
    async with peer.engine() as engine:
        first = [chunk.text async for chunk in engine.stream(request()) if chunk.text]
        second = [chunk.text async for chunk in engine.stream(request()) if chunk.text]
        peer.reads = 1_050
        longer = [chunk.text async for chunk in engine.stream(request(prompt(1_000))) if chunk.text]
    assert (first, second, longer) == ([ANSWER], peer.pieces, [ANSWER])
