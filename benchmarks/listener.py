"""A loopback stand-in for an engine that answers at once and notes when each call's whole body was there, and for a collector.

`python -m benchmarks.listener` prints its address. Times are the monotonic clock's, which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

import orjson
from aiohttp import web

_ANSWER: Final = '{"action":"hold","conviction":40,"horizon":5,"rationale":"The benchmark\'s fixed answer."}'
_MAX_BODY_BYTES: Final = 64 * 1024 * 1024


class Listener:
    """Arrivals of streamed calls, in order, each as (seconds on the monotonic clock, tokens of the prompt, bytes of the body)."""

    def __init__(self) -> None:
        self._arrivals: list[tuple[float, int, int]] = []

    def app(self) -> web.Application:
        app = web.Application(client_max_size=_MAX_BODY_BYTES)
        app.router.add_post("/generate", self._generate)
        app.router.add_get("/server_info", self._info)
        app.router.add_get("/v1/loads", self._loads)
        app.router.add_get("/arrivals", self._tell)
        app.router.add_post("/v1/traces", self._spans)
        return app

    async def _generate(self, request: web.Request) -> web.Response:
        body = await request.read()
        arrived = time.perf_counter()
        said = orjson.loads(body)
        tokens = len(said["input_ids"])
        meta: dict[str, Any] = {"prompt_tokens": tokens, "completion_tokens": 1, "cached_tokens": 0, "finish_reason": {"type": "stop"}}
        if not said["stream"]:
            return _json({"text": "", "meta_info": meta})
        self._arrivals.append((arrived, tokens, len(body)))
        event = b"data: " + orjson.dumps({"text": _ANSWER, "meta_info": meta}) + b"\n\ndata: [DONE]\n\n"
        return web.Response(body=event, content_type="text/event-stream")

    async def _info(self, _request: web.Request) -> web.Response:
        return _json({"served_model_name": "listener", "max_total_num_tokens": 1_450_000, "context_length": 65_536, "simulator": True})

    async def _loads(self, _request: web.Request) -> web.Response:
        return _json({"loads": [{"num_running_reqs": 0, "num_waiting_reqs": 0, "num_waiting_uncached_tokens": 0}]})

    async def _spans(self, request: web.Request) -> web.Response:
        """Take spans as a collector does, and look at none."""
        await request.read()
        return web.Response(content_type="application/x-protobuf")

    async def _tell(self, _request: web.Request) -> web.Response:
        return _json(self._arrivals)


async def _serve() -> None:
    runner = web.AppRunner(Listener().app(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


def _json(said: object) -> web.Response:
    return web.Response(body=orjson.dumps(said), content_type="application/json")


if __name__ == "__main__":
    asyncio.run(_serve())
