"""The OpenAI-compatible client against a small server that speaks chat completions."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from aiohttp import web

from services.inference.engine import EngineError
from services.inference.openai_client import OpenAIEngine

from .conftest import CLOCK, prompt, request, until


@dataclass
class Peer:
    """Writes `pieces`, one an event, then usage if `counts`; `hold` keeps it from going on after the first."""

    pieces: list[str] = field(default_factory=lambda: ['{"action":', '"hold"', "}"])
    counts: bool = True
    finish: str | None = "stop"
    hold: asyncio.Event | None = None
    bodies: list[dict[str, Any]] = field(default_factory=list)
    left: int = 0

    async def models(self, asked: web.Request) -> web.Response:
        if asked.headers.get("Authorization") != "Bearer right":
            return web.json_response({"error": {"message": "no such key"}}, status=401)
        return web.json_response({"object": "list", "data": [{"id": "some-model", "max_model_len": 32_768}]})

    async def complete(self, asked: web.Request) -> web.StreamResponse:
        self.bodies.append(orjson.loads(await asked.read()))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(asked)
        try:
            await self._say(response, {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
            for piece in self.pieces:
                await self._say(response, {"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]})
                if self.hold is not None:
                    await self.hold.wait()
            await self._say(response, {"choices": [{"index": 0, "delta": {}, "finish_reason": self.finish}]})
            if self.counts:
                usage = {"prompt_tokens": 70, "completion_tokens": 9, "prompt_tokens_details": {"cached_tokens": 64}}
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
    async def engine(self, *, path: str = "", key: str = "right", model: str | None = None) -> AsyncIterator[OpenAIEngine]:
        app = web.Application()
        app.router.add_get("/v1/models", self.models)
        app.router.add_post("/v1/chat/completions", self.complete)
        runner = web.AppRunner(app, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        engine = OpenAIEngine(f"http://127.0.0.1:{runner.addresses[0][1]}{path}", CLOCK, model=model, api_key=key)
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
    assert (usage.prompt_tokens, usage.output_tokens, usage.cached_tokens, usage.finish_reason) == (70, 9, 64, "stop")
    (body,) = peer.bodies
    assert body["model"] == "some-model"
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert (body["max_tokens"], body["stream_options"]) == (50, {"include_usage": True})


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
