"""The simulator's HTTP server: the part of SGLang 0.5.x's API that Aquiline uses, over the simulated GPU.

Steps take the calibrated time multiplied by `time_scale`; with 0 the server never waits, for tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import re
import time
import uuid
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from aiohttp import web

from services.core.tokenizer import Tokenizer
from services.inference.engine import TokenIds
from services.inference.simulator import report
from services.inference.simulator.answers import Answer, Author
from services.inference.simulator.gpu import Call, Gpu, PromptTooLongError
from services.inference.simulator.timing import Acceptance, Calibration

_MAX_BODY_BYTES = 64 * 1024 * 1024
_CATCH_UP_S = 0.1
_CUT_S = 0.01
"""How long calls in flight are waited for at the end. aiohttp takes 0 for no limit: a prefix being sent ahead held it up for 60 s."""
_OPEN_PATHS = ("/health", "/metrics")
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(slots=True, eq=False)
class _Flight:
    """A call with its answer; `news` is set whenever there is more of it."""

    call: Call
    answer: Answer
    news: asyncio.Event
    labels: TokenIds | None = None
    """Tokens whose log-probabilities are asked for."""


class _BadRequestError(Exception):
    pass


def _regex(sampling: dict[str, Any]) -> str | None:
    """Return what the answer must match; raise _BadRequestError when that is no regular expression."""
    regex = sampling.get("regex")
    if regex is None:
        return None
    try:
        re.compile(regex)
    except (TypeError, re.error) as error:
        raise _BadRequestError(f"regex must be a regular expression: {error}") from error
    return str(regex)


class Simulator:
    """One simulated SGLang server."""

    def __init__(
        self,
        calibration: Calibration,
        tokenizer: Tokenizer,
        *,
        seed: int = 0,
        time_scale: float = 1.0,
        api_key: str | None = None,
    ) -> None:
        """Stand for the GPU of `calibration`; the same `seed` and prompt give the same answer and the same steps."""
        self.gpu = Gpu(calibration)
        self.totals = report.Totals()
        self._calibration = calibration
        self._tokenizer = tokenizer
        self._author = Author(tokenizer)
        self._seed = seed
        self._time_scale = time_scale
        self._api_key = api_key
        self._flights: dict[str, _Flight] = {}
        self._work = asyncio.Event()
        self._resumed = asyncio.Event()
        self._resumed.set()
        self._started = time.monotonic()

    @contextlib.asynccontextmanager
    async def serving(self, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
        """Serve while the context lasts and yield the address; port 0 takes any free one. Raises OSError when it is taken.

        Leaving cuts every connection, as a killed server does. What the cache holds stays until the object goes.
        """
        runner = web.AppRunner(self._app(), handler_cancellation=True, access_log=None, shutdown_timeout=_CUT_S)
        await runner.setup()
        loop = asyncio.get_running_loop().create_task(self._run(), name="simulated gpu")
        try:
            await web.TCPSite(runner, host, port).start()
            bound = runner.addresses[0][1]
            yield f"http://{host}:{bound}"
        finally:
            loop.cancel()
            await asyncio.wait([loop])
            await runner.cleanup()
            self._abort_all()

    def _app(self) -> web.Application:
        app = web.Application(client_max_size=_MAX_BODY_BYTES, middlewares=[self._authorized])
        app.router.add_post("/generate", self._generate)
        app.router.add_post("/abort_request", self._abort_request)
        app.router.add_post("/pause_generation", self._pause)
        app.router.add_post("/continue_generation", self._continue)
        for path in ("/health", "/health_generate"):
            app.router.add_get(path, self._health)
        for path in ("/server_info", "/get_server_info"):
            app.router.add_get(path, self._server_info)
        for path in ("/model_info", "/get_model_info"):
            app.router.add_get(path, self._model_info)
        app.router.add_get("/v1/loads", self._loads)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_route("*", "/flush_cache", self._flush_cache)
        return app

    @web.middleware
    async def _authorized(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        if self._api_key is not None and not request.path.startswith(_OPEN_PATHS):
            given = request.headers.get("Authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(given.encode(), self._api_key.encode()):
                return _json({"error": "Unauthorized"}, 401)
        return await handler(request)

    async def _run(self) -> None:
        """Let the GPU work: its clock runs ahead of ours by what was not waited for yet, so that late wake-ups do not add up."""
        clock = asyncio.get_running_loop().time
        free_at = clock()
        while True:
            await self._resumed.wait()
            self._work.clear()
            step = self.gpu.next_step(_now_ms())
            if step is None:
                await self._work.wait()
                free_at = clock()
                continue
            free_at = max(free_at, clock() - _CATCH_UP_S) + step.duration_ms / 1000 * self._time_scale
            await asyncio.sleep(max(0.0, free_at - clock()))
            self._tell(self.gpu.finish(step, _now_ms()))

    def _tell(self, calls: list[Call]) -> None:
        for call in calls:
            self._flights[call.rid].news.set()

    def _abort_all(self) -> None:
        self._tell(self.gpu.abort("", _now_ms()))

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        try:
            body = orjson.loads(await request.read())
            streamed = bool(body.get("stream"))
            flight = self._take(body)
        except (orjson.JSONDecodeError, _BadRequestError, PromptTooLongError, AttributeError) as error:
            words = str(error) if not isinstance(error, AttributeError) else "the body is not a JSON object"
            return _json({"error": {"message": words}}, 400)
        if not streamed:
            return _json(await self._answered(flight), 200)
        with self._in_flight(flight):
            return await self._stream(request, flight)

    async def _answered(self, flight: _Flight) -> dict[str, Any]:
        """Return what is said of a call once it has ended."""
        with self._in_flight(flight):
            while flight.call.finish is None:
                flight.news.clear()
                await flight.news.wait()
            return self._said(flight)

    @contextlib.contextmanager
    def _in_flight(self, flight: _Flight) -> Iterator[None]:
        """Let the GPU work on a call; whoever waits for it no longer ends it."""
        call = flight.call
        self._flights[call.rid] = flight
        self._work.set()
        try:
            yield
        finally:
            if call.finish is None:
                self.gpu.abort(call.rid, _now_ms())
            self.totals.add(call)
            del self._flights[call.rid]

    async def _stream(self, request: web.Request, flight: _Flight) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await response.prepare(request)
        ended = False
        while not ended:
            await flight.news.wait()
            flight.news.clear()
            ended = flight.call.finish is not None
            event = b"data: " + orjson.dumps(self._said(flight)) + b"\n\n"
            await response.write(event + b"data: [DONE]\n\n" if ended else event)
        await response.write_eof()
        return response

    def _take(self, body: dict[str, Any]) -> _Flight:
        """Return the call that `body` asks for, queued; raise _BadRequestError or PromptTooLongError."""
        rid = str(body.get("rid") or uuid.uuid4().hex)
        if rid in self._flights:
            raise _BadRequestError(f"Duplicate request ID detected: {rid}")
        ids = self._ids(body)
        asked = body.get("sampling_params") or {}
        most = asked.get("max_new_tokens", 128) if isinstance(asked, dict) else None
        if not isinstance(most, int) or most < 0:
            raise _BadRequestError(f"max_new_tokens must be at least 0, got {most}.")
        stop = asked.get("stop")
        if stop is not None and not isinstance(stop, str):
            raise _BadRequestError(f"stop must be a text, got {stop!r}.")
        answer = self._author.answer(ids, stop, _regex(asked))
        acceptance = Acceptance(self._calibration.speculation, f"{self._seed}:{zlib.crc32(ids.tobytes())}")
        call = Call(rid, ids, answer.ids, most, acceptance, _now_ms())
        labels = self._labels(body)
        self.gpu.submit(call)
        return _Flight(call, answer, asyncio.Event(), labels)

    def _labels(self, body: dict[str, Any]) -> TokenIds | None:
        if not body.get("return_logprob") or not body.get("token_ids_logprob"):
            return None
        return self._checked(body["token_ids_logprob"], "token_ids_logprob")

    def _ids(self, body: dict[str, Any]) -> TokenIds:
        given = body.get("input_ids")
        if given is None and isinstance(body.get("text"), str):
            return self._tokenizer.encode(body["text"])
        if not isinstance(given, list) or not given:
            raise _BadRequestError("Either text or input_ids should be provided, one prompt, not empty.")
        return self._checked(given, "input_ids")

    def _checked(self, given: object, name: str) -> TokenIds:
        try:
            wide = np.array(given, dtype=np.int64)
        except (TypeError, ValueError, OverflowError) as error:
            raise _BadRequestError(f"{name} must be a flat list of integers: {error}") from error
        if wide.ndim != 1 or wide.min() < 0 or wide.max() >= self._tokenizer.vocab_size:
            raise _BadRequestError(f"{name} must be a flat list of ids from 0 to {self._tokenizer.vocab_size - 1}.")
        return wide.astype(np.int32)

    def _said(self, flight: _Flight) -> dict[str, Any]:
        meta = report.meta_info(flight.call)
        if flight.labels is not None and flight.call.produced:
            scores = self._author.scores(flight.call.input_ids, flight.labels)
            meta["output_token_ids_logprobs"] = [
                [[score, label, None] for score, label in zip(scores.tolist(), flight.labels.tolist(), strict=True)]
            ]
        return {
            "text": flight.answer.text_at(flight.call.produced),
            "output_ids": flight.answer.ids[: flight.call.produced].tolist(),
            "meta_info": meta,
        }

    async def _abort_request(self, request: web.Request) -> web.Response:
        body = orjson.loads(await request.read() or b"{}")
        rid = str(body.get("rid") or "")
        if body.get("abort_all"):
            self._abort_all()
        elif rid:
            # An empty rid would match every call by prefix; SGLang ignores it.
            self._tell(self.gpu.abort(rid, _now_ms()))
        self._work.set()
        return web.Response()

    async def _pause(self, request: web.Request) -> web.Response:
        del request
        self._resumed.clear()
        return _json({"message": "Generation paused successfully.", "status": "ok"}, 200)

    async def _continue(self, request: web.Request) -> web.Response:
        del request
        self._resumed.set()
        return _json({"message": "Generation continued successfully.", "status": "ok"}, 200)

    async def _health(self, request: web.Request) -> web.Response:
        del request
        return web.Response()

    async def _server_info(self, request: web.Request) -> web.Response:
        del request
        return _json(report.server_info(self._calibration), 200)

    async def _model_info(self, request: web.Request) -> web.Response:
        del request
        return _json(report.model_info(self._calibration), 200)

    async def _loads(self, request: web.Request) -> web.Response:
        del request
        return _json(report.loads(self.gpu), 200)

    async def _metrics(self, request: web.Request) -> web.Response:
        del request
        text = report.prometheus(self.gpu, self.totals, time.monotonic() - self._started)
        return web.Response(text=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def _flush_cache(self, request: web.Request) -> web.Response:
        del request
        if self.gpu.flush():
            return web.Response(text="Cache flushed.\n")
        return web.Response(text="Flush cache failed: calls wait or run.\n", status=400)


def _json(said: object, status: int) -> web.Response:
    return web.Response(body=orjson.dumps(said), status=status, content_type="application/json")


def _now_ms() -> float:
    return time.monotonic() * 1000
