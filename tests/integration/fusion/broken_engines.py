"""Servers that answer as SGLang and as an OpenAI-compatible server do, with every answer broken in another way."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import orjson
from aiohttp import web

from tests.integration.fusion.engines import on_loopback
from tests.integration.fusion.mutations import EXTREMES, broken

ANSWERS: Final = (
    '{"action":"hold","conviction":40,"horizon":5,"rationale":"no edge"}',
    '{"action":"buy","conviction":62,"horizon":5,"entry":0,"stop":-12,"target":25,"rationale":"a rise"}',
    '{"action":"sell","conviction":62,"horizon":5,"entry":0,"stop":12,"target":-25,"rationale":"a fall"}',
    '{"action":"exit","conviction":40,"horizon":5,"rationale":"enough"}',
    '{"action":"abstain","reason":"thin data","rationale":"nothing to say"}',
)
_PIECES: Final = 6


class BrokenEngine:
    """Serves `/generate` and `/v1/chat/completions`; `draw` gives the randomness of the n-th answer."""

    def __init__(self, draw: Callable[[int], random.Random]) -> None:
        self._draw = draw
        self.answered = 0
        self.url = ""

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[BrokenEngine]:
        """Serve on loopback while the context lasts."""
        routes = [
            web.post("/generate", self._generate),
            web.post("/abort_request", self._nothing),
            web.get("/server_info", self._info),
            web.get("/v1/loads", self._loads),
            web.get("/v1/models", self._models),
            web.post("/v1/chat/completions", self._chat),
        ]
        async with on_loopback(routes) as self.url:
            yield self

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        tokens = len(orjson.loads(await request.read())["input_ids"])
        draw, text = self._next()
        events: list[dict[str, Any]] = []
        for piece in range(1, _PIECES + 1):
            meta: dict[str, Any] = {
                "id": "x",
                "finish_reason": None,
                "prompt_tokens": tokens,
                "completion_tokens": piece,
                "cached_tokens": 0,
            }
            if piece == _PIECES:
                meta["finish_reason"] = {"type": "stop"}
            events.append({"text": text[: len(text) * piece // _PIECES], "meta_info": meta})
        return await self._stream(request, draw, events)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        draw, text = self._next()
        step = -(-len(text) // _PIECES)
        events: list[dict[str, Any]] = [
            {"id": "x", "model": "broken", "choices": [{"index": 0, "delta": {"content": text[at : at + step]}, "finish_reason": None}]}
            for at in range(0, len(text), step)
        ]
        events.append({"id": "x", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        events.append({"id": "x", "choices": [], "usage": {"prompt_tokens": 1_000, "completion_tokens": 20}})
        return await self._stream(request, draw, events)

    def _next(self) -> tuple[random.Random, str]:
        draw = self._draw(self.answered)
        self.answered += 1
        return draw, draw.choice(ANSWERS)

    async def _stream(self, request: web.Request, draw: random.Random, events: list[dict[str, Any]]) -> web.StreamResponse:
        kind = draw.randrange(10)
        if kind == 0:
            return web.Response(status=draw.choice((200, 204, 400, 404, 413, 422, 429, 500, 503)), body=broken(b'{"error": null}', draw))
        lines = [orjson.dumps(_odd(event, draw) if kind in {1, 2, 3} else event) for event in events]
        if kind in {4, 5}:
            at = draw.randrange(len(lines))
            lines[at] = broken(lines[at], draw)
        elif kind == 6:
            del lines[draw.randrange(len(lines)) :]
        elif kind == 7:
            lines = [broken(line, draw) for line in lines]
        body = b"".join(b"data: " + line + b"\n\n" for line in lines) + b"data: [DONE]\n\n"
        if kind == 8:
            body = broken(body, draw)
        response = web.StreamResponse(headers={"Content-Type": draw.choice(("text/event-stream", "text/html"))})
        await response.prepare(request)
        step = draw.choice((7, 100, 10_000))
        with contextlib.suppress(ConnectionError):
            for start in range(0, len(body), step):
                await response.write(body[start : start + step])
            await response.write_eof()
        return response

    async def _nothing(self, request: web.Request) -> web.Response:
        del request
        return web.Response()

    async def _info(self, request: web.Request) -> web.Response:
        del request
        return web.json_response({"served_model_name": "broken", "max_total_num_tokens": 1_000_000})

    async def _models(self, request: web.Request) -> web.Response:
        del request
        return web.json_response({"data": [{"id": "broken", "max_model_len": 1_000_000}]})

    async def _loads(self, request: web.Request) -> web.Response:
        del request
        return web.json_response({"loads": []})


def _odd(value: Any, draw: random.Random) -> Any:
    """Return JSON with some of its values made extreme, at any depth: nulls, lists and texts where numbers belong."""
    if draw.random() < 0.08:
        return draw.choice(EXTREMES)
    if isinstance(value, dict):
        return {name: _odd(inner, draw) for name, inner in value.items() if draw.random() > 0.03}
    if isinstance(value, list):
        return [_odd(inner, draw) for inner in value]
    return value
