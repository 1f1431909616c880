"""Any OpenAI-compatible server (vLLM, Ollama, llama.cpp, CPM.cu): chat completions, streamed, the prompt as text.

Such servers take no token ids and have no call to abort by: closing the connection is what they notice.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final

import orjson

from services.core.clock import Clock
from services.inference.engine import Capabilities, Chunk, EngineError, EngineInfo, EngineLoad, EngineRequest, Scores, TokenIds, Usage
from services.inference.sse import DONE
from services.inference.wire import Deadline, Wire, error_words, refusal

CAPABILITIES: Final = Capabilities(token_ids=False, prewarm=False, abort="by closing", grammar=True, logprobs=False, cached_tokens=True)


class OpenAIEngine:
    """One OpenAI-compatible server; its address may end in `/v1` or not."""

    def __init__(
        self, url: str, clock: Clock, *, model: str | None = None, api_key: str | None = None, connect_timeout_ms: int = 1_000
    ) -> None:
        """Prepare for the server at `url`; without `model` the first one that it lists is asked. Raise ValueError for a bad address."""
        self._wire = Wire(url, api_key=api_key, connect_timeout_ms=connect_timeout_ms)
        self._v1 = "" if self._wire.path.endswith("/v1") else "/v1"
        self._clock = clock
        self._model = model
        self._info: EngineInfo | None = None

    @property
    def name(self) -> str:
        """Return `openai@host:port`."""
        return f"openai@{self._wire.where}"[:64]

    @property
    def capabilities(self) -> Capabilities:
        """Return what any such server can do; whether it counts cached tokens differs."""
        return CAPABILITIES

    async def info(self) -> EngineInfo:
        """Return the model, and its context length where the server lists it (vLLM does); raise EngineError."""
        if self._info is None:
            said = await self._wire.get(f"{self._v1}/models")
            listed = said.get("data") if isinstance(said, dict) else None
            models = {str(one["id"]): one for one in listed or [] if isinstance(one, dict) and "id" in one}
            model = self._model or next(iter(models), None)
            if model is None:
                raise EngineError("engine_refused", f"{self._wire.where} lists no model; name one in engine.model")
            if models and model not in models:
                raise EngineError("engine_refused", f"{self._wire.where} has no model {model!r}, but {', '.join(list(models)[:5])}")
            length = models.get(model, {}).get("max_model_len")
            self._info = EngineInfo(self.name, "llm", model, context_tokens=length if isinstance(length, int) else None)
        return self._info

    async def stream(self, request: EngineRequest) -> AsyncGenerator[Chunk]:
        """Yield the answer as it comes, the last chunk with `usage`; raise EngineError.

        Where the server leaves usage out, the prompt's tokens are those of `input_ids` and the output's the pieces that came.
        """
        model = self._model or (await self.info()).model
        deadline = Deadline(request.deadline_ms, self._clock)
        finish: str | None = None
        usage: Mapping[str, Any] = {}
        pieces = 0
        events = self._wire.events(
            f"{self._v1}/chat/completions", _body(request, model), deadline, {"X-Request-Id": request.rid, **request.trace_headers}
        )
        try:
            async for payloads in events:
                for payload in payloads:
                    if payload == DONE:
                        continue
                    said = self._loads(payload)
                    usage = said.get("usage") or usage
                    for choice in said.get("choices") or []:
                        finish = choice.get("finish_reason") or finish
                        if text := (choice.get("delta") or {}).get("content"):
                            pieces += 1
                            yield Chunk(text)
        finally:
            await events.aclose()
        if finish is None:
            raise EngineError("engine_broke", f"{self._wire.where} ended the stream after {pieces} pieces without a finish reason")
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
        yield Chunk(
            "",
            cached,
            Usage(
                prompt_tokens=usage.get("prompt_tokens", request.input_ids.size),
                output_tokens=usage.get("completion_tokens", pieces),
                cached_tokens=cached,
                finish_reason=finish,
            ),
        )

    async def warm(self, rid: str, affinity: str, input_ids: TokenIds) -> Usage:
        """Do nothing: ids cannot be sent."""
        del rid, affinity
        return Usage(prompt_tokens=input_ids.size, output_tokens=0)

    async def score(self, request: EngineRequest, labels: TokenIds) -> Scores:
        """Raise EngineError: chat completions score no given tokens."""
        del request, labels
        raise EngineError("engine_refused", f"{self.name} gives no log-probabilities of given tokens")

    async def load(self, affinity: str | None = None) -> EngineLoad | None:
        """Return None: the API does not say."""
        del affinity
        return None

    async def watch(self) -> None:
        """Do nothing: whoever guards the address watches over it."""

    async def close(self) -> None:
        """Close the connections."""
        await self._wire.close()

    def _loads(self, payload: bytes) -> dict[str, Any]:
        try:
            said = orjson.loads(payload)
        except orjson.JSONDecodeError as error:
            raise EngineError("engine_broke", f"{self._wire.where} sent what is not JSON: {payload[:80]!r}") from error
        if not isinstance(said, dict) or "error" in said:
            code = said["error"].get("code") if isinstance(said, dict) and isinstance(said["error"], dict) else None
            raise refusal(code if isinstance(code, int) else 500, error_words(payload), self._wire.where)
        return said


def _body(request: EngineRequest, model: str) -> bytes:
    system, user = request.text()
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "system", "content": system}, {"role": "user", "content": user}],
        "max_tokens": request.sampling.max_new_tokens,
        "temperature": request.sampling.temperature,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.sampling.json_schema is not None:
        schema = {"name": "answer", "strict": True, "schema": orjson.Fragment(request.sampling.json_schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return orjson.dumps(body)
