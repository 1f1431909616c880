"""vLLM through `/v1/completions`: token ids in, structured outputs, a stream of text out. Closing the connection ends a call.

Field names are those of vLLM's `entrypoints/openai`, 2026. Cached tokens are counted when the server runs with
`--enable-prompt-tokens-details`; labels are scored from the release on that takes `logprob_token_ids` (July 2026).
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Annotated, Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import Field

from services.core.clock import Clock
from services.inference.engine import Capabilities, Chunk, EngineError, EngineInfo, EngineRequest, Scores, TokenIds, Usage
from services.inference.http_client import Deadline
from services.inference.http_engine import HttpEngine, dumps, listed_model, v1_prefix
from services.inference.reply import Counts, Name, Objects, Reply, Table, Text, parse

CAPABILITIES: Final = Capabilities(
    token_ids=True, prewarm=True, abort="by closing", grammar=True, logprobs=True, cached_tokens=True, regex=True
)

_WARM_S: Final = 60.0
_TOKEN_ID: Final = "token_id:"  # noqa: S105 - how vLLM spells an id


class _Logprobs(Reply):
    top_logprobs: Any = None


class _Choice(Reply):
    text: Text = ""
    finish_reason: Name = None
    logprobs: Annotated[_Logprobs, Table] = Field(default_factory=_Logprobs)


class _Completion(Reply):
    choices: Annotated[tuple[_Choice, ...], Objects] = ()
    usage: Annotated[Counts, Table] = Field(default_factory=Counts)

    def first_logprobs(self, labels: TokenIds) -> NDArray[np.float64] | None:
        """Return the log-probabilities of `labels` at this piece's first token, in their order; None when one of them is not there."""
        try:
            first = self.choices[0].logprobs.top_logprobs[0]
            by_id = {int(token.removeprefix(_TOKEN_ID)): float(value) for token, value in first.items()}
            return np.array([by_id[label] for label in labels.tolist()])
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            return None


class VllmEngine(HttpEngine):
    """One vLLM server; its address may end in `/v1` or not."""

    kind = "vllm"
    capabilities = CAPABILITIES

    def __init__(
        self, url: str, clock: Clock, *, model: str | None = None, api_key: str | None = None, connect_timeout_ms: int = 1_000
    ) -> None:
        """Prepare for the server at `url`; without `model` the first one that it lists is asked. Raise ValueError for a bad address."""
        super().__init__(url, clock, api_key=api_key, connect_timeout_ms=connect_timeout_ms)
        self._v1 = v1_prefix(self._http)
        self._model = model

    async def stream(self, request: EngineRequest) -> AsyncGenerator[Chunk]:
        """Yield the answer as it comes, the last chunk with `usage`; raise EngineError."""
        deadline, sent = Deadline(request.deadline_ms, self._clock), request.input_ids.size
        headers = {"X-Request-Id": request.rid, **request.trace_headers}
        finish: str | None = None
        counts, pieces, first, said_cached = Counts(), 0, True, False
        body = await self._body(request.input_ids, _options(request))
        async with contextlib.aclosing(self._events(f"{self._v1}/completions", body, deadline, headers)) as events:
            async for info, batch in events:
                text, logprobs = "", None
                for event in batch:
                    reply = self._completion(event, sent)
                    if request.labels is not None and not pieces and logprobs is None:
                        logprobs = reply.first_logprobs(request.labels)
                    counts = reply.usage if reply.usage.prompt_tokens is not None else counts
                    for choice in reply.choices:
                        finish = choice.finish_reason or finish
                        pieces += bool(choice.text)
                        text += choice.text
                cached = None if said_cached else counts.prompt_tokens_details.cached_tokens
                if text or first or cached is not None:
                    yield Chunk(text, cached, None, info if first else None, logprobs)
                first, said_cached = False, said_cached or cached is not None
        if finish is None:
            raise EngineError("engine_broke", f"{self._http.where} ended the stream after {pieces} pieces without a finish reason")
        yield Chunk("", usage=_usage(counts, sent, pieces, finish))

    async def warm(self, rid: str, affinity: str, input_ids: TokenIds) -> Usage:
        """Prefill `input_ids` within 60 s, for one token that nobody reads; raise EngineError."""
        del rid, affinity
        reply = await self._answer(await self._body(input_ids, {"max_tokens": 1, "temperature": 0.0}), _WARM_S, input_ids.size)
        return _usage(reply.usage, input_ids.size, 1, "length")

    async def score(self, request: EngineRequest, labels: TokenIds) -> Scores:
        """Return how likely each of `labels` is right after the prompt; raise EngineError."""
        deadline, sent = Deadline(request.deadline_ms, self._clock), request.input_ids.size
        more = {"max_tokens": 1, "temperature": 0.0, **_asking_for(labels)}
        reply = await self._answer(await self._body(request.input_ids, more), deadline.left_s(), sent)
        logprobs = reply.first_logprobs(labels)
        if logprobs is None:
            raise EngineError(
                "engine_refused",
                f"{self._http.where} sent no log-probabilities of the label tokens; use a vLLM that takes logprob_token_ids",
            )
        return Scores(logprobs, _usage(reply.usage, sent, 1, "length"), await self._answering())

    async def _read_info(self) -> EngineInfo:
        return await listed_model(self._http, self._v1, self._model, self.name)

    async def _body(self, ids: TokenIds, more: dict[str, Any]) -> bytes:
        model = self._model or (await self.info()).model
        self._fits(ids.size)
        return dumps({"model": model, "prompt": np.ascontiguousarray(ids), **more})

    async def _answer(self, body: bytes, timeout_s: float, sent: int) -> _Completion:
        return self._completion(await self._whole(f"{self._v1}/completions", body, timeout_s), sent)

    def _completion(self, event: dict[str, Any], sent: int) -> _Completion:
        reply = parse(_Completion, event, self._http.where)
        self._whole_prompt(reply.usage.prompt_tokens or None, sent)
        return reply


def _options(request: EngineRequest) -> dict[str, Any]:
    """Return the fields of a streamed call beside its prompt."""
    sampling = request.sampling
    options: dict[str, Any] = {
        "max_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }
    if sampling.temperature > 0:
        # Without it the server takes the one in the model's generation_config.json.
        options["top_p"] = sampling.top_p
        if sampling.seed is not None:
            options["seed"] = sampling.seed
    if sampling.stop is not None:
        options["stop"] = sampling.stop
    if sampling.json_schema is not None:
        options["structured_outputs"] = {"json": orjson.Fragment(sampling.json_schema), "disable_any_whitespace": True}
    elif sampling.regex is not None:
        options["structured_outputs"] = {"regex": sampling.regex}
    if sampling.ignore_eos:
        options["ignore_eos"] = True
    if request.labels is not None:
        options |= _asking_for(request.labels)
    return options


def _asking_for(labels: TokenIds) -> dict[str, Any]:
    """Return the fields that ask for the log-probabilities of `labels`."""
    return {"logprobs": 1, "logprob_token_ids": np.ascontiguousarray(labels), "return_tokens_as_token_ids": True}


def _usage(counts: Counts, sent: int, pieces: int, finish: str) -> Usage:
    return Usage(
        prompt_tokens=counts.prompt_tokens or sent,
        output_tokens=pieces if counts.completion_tokens is None else counts.completion_tokens,
        cached_tokens=counts.prompt_tokens_details.cached_tokens,
        finish_reason=finish,
    )
