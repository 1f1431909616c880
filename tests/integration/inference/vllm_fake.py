"""The part of vLLM's API that the client uses, without a model: a script of answers, a prefix cache, and what it was sent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
from aiohttp import web

from services.inference.simulator.radix import RadixTree

MODEL = "some-model"


@dataclass
class VllmFake:
    """Answers with `pieces`; reads at most `reads` tokens of a prompt; `hold` keeps it from going on after the first piece."""

    pieces: tuple[str, ...] = ('{"action":"exit","conviction":50,"horizon":5,', '"rationale":"', "because", '"}')
    line: tuple[str, ...] = ("buy", " 62 5 2", " -12 25")
    """What is answered under a regular expression."""
    reads: int = 1_000_000
    scores: bool = True
    hold: asyncio.Event | None = None
    port: int = 0
    bodies: list[dict[str, Any]] = field(default_factory=list)
    running: int = 0
    tree: RadixTree = field(default_factory=RadixTree)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Serve, on the port of the last time; leaving cuts every connection and empties the cache."""
        app = web.Application(client_max_size=1 << 26)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/completions", self._complete)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.01)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()
        self.port = runner.addresses[0][1]
        try:
            yield f"http://127.0.0.1:{self.port}"
        finally:
            await runner.cleanup()
            self.tree = RadixTree()

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": MODEL, "max_model_len": 8_192}]})

    async def _complete(self, asked: web.Request) -> web.StreamResponse:
        body = orjson.loads(await asked.read())
        self.bodies.append(body)
        ids = np.array(body["prompt"], np.int32)
        cached, _ = self.tree.match(ids[:-1])
        self.tree.insert(ids)
        usage = {"prompt_tokens": min(ids.size, self.reads), "prompt_tokens_details": {"cached_tokens": cached}}
        self.running += 1
        try:
            if body.get("stream"):
                return await self._stream(asked, body, usage)
            choice: dict[str, Any] = {"text": self.pieces[0], "finish_reason": "length"}
            choice |= self._logprobs(body)
            return web.json_response({"choices": [choice], "usage": {**usage, "completion_tokens": 1}})
        finally:
            self.running -= 1

    def _logprobs(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the field with the log-probabilities of the tokens that `body` names, by their place among them."""
        if not self.scores or "logprob_token_ids" not in body:
            return {}
        by_token = {f"token_id:{label}": -1.0 - number for number, label in enumerate(body["logprob_token_ids"])}
        return {"logprobs": {"top_logprobs": [by_token]}}

    def _script(self, body: dict[str, Any]) -> tuple[str, ...]:
        """Return the pieces up to the text to stop at; the whole script in one piece where it is cut."""
        if "regex" in body.get("structured_outputs", {}):
            return self.line
        whole = "".join(self.pieces)
        stop = body.get("stop")
        return (whole.partition(stop)[0],) if stop is not None and stop in whole else self.pieces

    async def _stream(self, asked: web.Request, body: dict[str, Any], usage: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(asked)
        script = self._script(body)
        pieces = script[: body["max_tokens"]]
        for number, piece in enumerate(pieces, start=1):
            cut = number == body["max_tokens"] < len(script)
            finish = "length" if cut else "stop" if number == len(pieces) else None
            choice = {"index": 0, "text": piece, "finish_reason": finish, **self._logprobs(body)}
            event = {"choices": [choice], "usage": {**usage, "completion_tokens": number}}
            await response.write(b"data: " + orjson.dumps(event) + b"\n\n")
            if self.hold is not None:
                await self.hold.wait()
        await response.write(b"data: [DONE]\n\n")
        return response
