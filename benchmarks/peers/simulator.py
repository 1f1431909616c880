"""The simulator with `/v1/chat/completions`, as SGLang has it, since peers ask through OpenAI's client.

`python -m benchmarks.peers.simulator` prints its address.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import Final

import numpy as np
import orjson
from aiohttp import web

from services.core.settings import EngineSettings
from services.fusion.prompt.blocks import Encoder
from services.fusion.prompt.chat import TEMPLATES
from services.fusion.service import load_tokenizer
from services.inference.simulator.__main__ import DATA, LISTENING
from services.inference.simulator.server import Simulator
from services.inference.simulator.timing import Calibration

_TEMPLATE: Final = TEMPLATES["minicpm4"]


class ChatSimulator(Simulator):
    """A simulated SGLang server that takes chat messages too, a system text and a user's, and answers them whole."""

    def __init__(self) -> None:
        """Stand for one H100, as the simulator does unless told otherwise."""
        tokenizer = load_tokenizer(EngineSettings())
        super().__init__(Calibration.from_file(DATA / "calibration-h100.json"), tokenizer)
        self._encoder = Encoder(tokenizer, _TEMPLATE)

    def _app(self) -> web.Application:
        app = super()._app()
        app.router.add_post("/v1/chat/completions", self._chat)
        return app

    async def _chat(self, request: web.Request) -> web.Response:
        asked = orjson.loads(await request.read())
        system, user = (message["content"] for message in asked["messages"])
        ids = np.concatenate(self._encoder.encode_all((*_TEMPLATE.head, system, *_TEMPLATE.middle, user, *_TEMPLATE.tail("fast"))))
        sampling = {"max_new_tokens": asked["max_tokens"], "regex": asked.get("regex")}
        flight = self._take({"rid": uuid.uuid4().hex, "input_ids": ids.tolist(), "sampling_params": sampling})
        said = await self._answered(flight)
        meta = said["meta_info"]
        answer = {
            "id": meta["id"],
            "object": "chat.completion",
            "created": 0,
            "model": asked["model"],
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": said["text"]}}],
            "usage": {
                "prompt_tokens": meta["prompt_tokens"],
                "completion_tokens": meta["completion_tokens"],
                "total_tokens": meta["prompt_tokens"] + meta["completion_tokens"],
                "prompt_tokens_details": {"cached_tokens": meta["cached_tokens"]},
            },
        }
        return web.Response(body=orjson.dumps(answer), content_type="application/json")


async def _serve() -> None:
    async with ChatSimulator().serving() as url:
        print(f"{LISTENING}{url}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve())
