"""Engines for tests: the simulator as a process at a chosen pace, and a server that speaks as SGLang does and answers as it is told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path

import orjson
from aiohttp import ClientSession, web

from deploy.local.simulator import LocalSimulator

GOOD = '{"action":"hold","conviction":40,"horizon":5,"rationale":"as told"}'


class PacedSimulator(LocalSimulator):
    """The simulator; `time_scale` 0.1 is ten times as fast as the GPU."""

    def __init__(self, folder: Path, *, port: int | None = None, time_scale: float = 0.1) -> None:
        super().__init__(folder, port=port)
        self.time_scale = time_scale

    def _command(self) -> list[str]:
        return [*super()._command(), "--time-scale", str(self.time_scale)]

    async def hang(self) -> None:
        """Answer nothing from now on; connections stay open."""
        await self._post("/pause_generation")

    async def go_on(self) -> None:
        """Undo `hang`."""
        await self._post("/continue_generation")

    async def calls(self) -> int:
        """Return how many calls it holds, waiting and running."""
        async with ClientSession() as session, session.get(f"{self.url}/v1/loads") as answer:
            said = await answer.json()
        return sum(rank["num_running_reqs"] + rank["num_waiting_reqs"] for rank in said["loads"])

    async def _post(self, path: str) -> None:
        async with ClientSession() as session, session.post(self.url + path, json={}) as answer:
            answer.raise_for_status()


Script = Callable[["Reply"], Awaitable[None]]


class Reply:
    """One streamed answer under way; texts are cumulative, as SGLang's are."""

    def __init__(self, response: web.StreamResponse, tokens: int) -> None:
        self._response = response
        self._tokens = tokens

    async def send(self, text: str, finish: str | None = None) -> None:
        """Send all of the text so far, `finish` with the last piece."""
        meta = {
            "id": "x",
            "finish_reason": {"type": finish} if finish else None,
            "prompt_tokens": self._tokens,
            "completion_tokens": 1,
            "cached_tokens": 0,
        }
        await self.raw(b"data: " + orjson.dumps({"text": text, "meta_info": meta}) + b"\n\n")
        if finish:
            await self.raw(b"data: [DONE]\n\n")

    async def raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        await self._response.write(data)


@contextlib.asynccontextmanager
async def on_loopback(routes: Iterable[web.RouteDef]) -> AsyncIterator[str]:
    """Serve `routes` on a free port of loopback while the context lasts, and yield the address."""
    app = web.Application(client_max_size=1 << 26)
    app.add_routes(routes)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.01)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class ScriptedEngine:
    """Answers each `/generate` with the next script; `good` once they are used up."""

    def __init__(self) -> None:
        self.scripts: list[Script] = []
        self.asked = 0
        self.aborted: list[str] = []
        self.url = ""
        self.simulator = False

    async def good(self, reply: Reply) -> None:
        """Hold, as told."""
        await reply.send(GOOD, "stop")

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[ScriptedEngine]:
        """Serve on loopback while the context lasts."""
        routes = [
            web.post("/generate", self._generate),
            web.post("/abort_request", self._abort),
            web.get("/server_info", self._info),
            web.get("/v1/loads", self._loads),
        ]
        async with on_loopback(routes) as self.url:
            yield self

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        body = orjson.loads(await request.read())
        self.asked += 1
        script = self.scripts.pop(0) if self.scripts else self.good
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await script(Reply(response, len(body["input_ids"])))
        await response.write_eof()
        return response

    async def _abort(self, request: web.Request) -> web.Response:
        self.aborted.append(orjson.loads(await request.read()).get("rid", ""))
        return web.Response()

    async def _info(self, request: web.Request) -> web.Response:
        del request
        return web.json_response({"served_model_name": "scripted", "max_total_num_tokens": 100_000, "simulator": self.simulator})

    async def _loads(self, request: web.Request) -> web.Response:
        del request
        return web.json_response({"loads": []})


async def never(reply: Reply) -> None:
    """Answer nothing until the caller gives up."""
    del reply
    await asyncio.Event().wait()
