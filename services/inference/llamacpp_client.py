"""llama.cpp's server through `/completion`: token ids in, a stream of text out, each symbol on slots of its own.

Closing the connection ends a call on the server. Field names are those of llama.cpp's `tools/server`, October 2026.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator
from functools import lru_cache
from pathlib import PurePath
from typing import Annotated, Any, Final

import numpy as np
import orjson
import structlog
from numpy.typing import NDArray
from pydantic import Field

from services.core.clock import Clock
from services.inference.engine import Capabilities, Chunk, EngineError, EngineInfo, EngineRequest, Scores, TokenIds, Usage
from services.inference.gbnf import grammar, regex_grammar
from services.inference.http_client import Deadline
from services.inference.http_engine import HttpEngine, dumps
from services.inference.reply import Count, Name, Number, Reply, Table, Text, parse
from services.inference.slots import Slots

_log = structlog.get_logger()

CAPABILITIES: Final = Capabilities(
    token_ids=True, prewarm=True, abort="by closing", grammar=True, logprobs=True, cached_tokens=True, regex=True, prewarm_yields=True
)

_SLICE_TOKENS: Final = 256
"""A prefix is sent ahead in slices of this many new tokens, none while a decision waits: a CPU prefills some 100 tokens a second."""
_SLICE_S: Final = 60.0
_LIKELY: Final = 256
"""The most likely tokens, among which the labels of a trained model are: their list is 20 KB, the whole vocabulary's megabytes."""
_WHOLE_VOCABULARY: Final = 10_000_000
_WHOLE: Final = {"top_k": 0, "min_p": 0.0}
"""llama.cpp cuts the distribution by default; other engines do not."""


class _Timings(Reply):
    cache_n: Count = None


class _Progress(Reply):
    cache: Count = None


class _TokenLogprob(Reply):
    id: Count = None
    logprob: Number = None


class _Position(Reply):
    top_logprobs: tuple[_TokenLogprob, ...] = ()


class _Completion(Reply):
    """An event of a stream, or a whole answer."""

    content: Text = ""
    stop: bool = False
    stop_type: Name = None
    tokens_predicted: Count = None
    tokens_evaluated: Count = None
    truncated: bool = False
    timings: Annotated[_Timings, Table] = Field(default_factory=_Timings)
    prompt_progress: Annotated[_Progress, Table] = Field(default_factory=_Progress)
    completion_probabilities: tuple[_Position, ...] = ()

    def first_logprobs(self, labels: TokenIds) -> NDArray[np.float64] | None:
        """Return the log-probabilities of `labels` at the first token, in their order; None when one of them is not there."""
        found = {one.id: one.logprob for position in self.completion_probabilities[:1] for one in position.top_logprobs}
        logprobs = [found.get(label) for label in labels.tolist()]
        return None if None in logprobs else np.array(logprobs, dtype=np.float64)

    def usage(self, sent: int) -> Usage:
        finish = {"eos": "stop", "word": "stop", "limit": "length"}.get(self.stop_type or "", self.stop_type)
        return Usage(
            prompt_tokens=self.tokens_evaluated or sent,
            output_tokens=self.tokens_predicted or 0,
            cached_tokens=self.timings.cache_n,
            finish_reason=finish,
        )


class _Generation(Reply):
    n_ctx: Count = None


class _Props(Reply):
    total_slots: Count = None
    model_alias: Name = None
    model_path: Name = None
    build_info: Name = None
    default_generation_settings: Annotated[_Generation, Table] = Field(default_factory=_Generation)


class LlamaCppEngine(HttpEngine):
    """One llama.cpp server. `load` says nothing, since what is sent ahead waits for decisions by itself."""

    kind = "llamacpp"
    capabilities = CAPABILITIES

    def __init__(self, url: str, clock: Clock, *, api_key: str | None = None, connect_timeout_ms: int = 1_000) -> None:
        """Prepare for the server at `url`; raise ValueError for a bad address."""
        # llama.cpp closes a connection after a stream, whatever its headers say: the next call would break on it.
        super().__init__(url, clock, api_key=api_key, connect_timeout_ms=connect_timeout_ms, keep_alive=False)
        self._slots = Slots(1)
        self._deciding = 0
        self._quiet = asyncio.Event()
        """Set while no decision waits for the server."""
        self._quiet.set()

    async def stream(self, request: EngineRequest) -> AsyncGenerator[Chunk]:
        """Yield the answer as it comes, the last chunk with `usage`; raise EngineError."""
        deadline, sent = Deadline(request.deadline_ms, self._clock), request.input_ids.size
        first, ended, said_cached, labels = True, False, False, request.labels
        with self._decision():
            await self.info()
            self._fits(sent)
            with self._slot(request) as slot:
                async with contextlib.aclosing(
                    self._events("/completion", _body(request, slot), deadline, request.trace_headers)
                ) as events:
                    async for info, batch in events:
                        for event in batch:
                            if ended:
                                break
                            reply = self._completion(event, sent)
                            ended = reply.stop
                            cached = reply.timings.cache_n if ended else reply.prompt_progress.cache
                            usage = reply.usage(sent) if ended else None
                            logprobs = None if labels is None or not reply.completion_probabilities else reply.first_logprobs(labels)
                            labels = None if reply.completion_probabilities else labels
                            yield Chunk(reply.content, None if said_cached else cached, usage, info if first else None, logprobs)
                            first, said_cached = False, said_cached or cached is not None
        if not ended:
            raise EngineError("engine_broke", f"{self._http.where} ended the stream without a last event")

    async def warm(self, rid: str, affinity: str, input_ids: TokenIds) -> Usage:
        """Prefill `input_ids` in slices, none while a decision waits; raise EngineError.

        Usage is empty when the server has no slot to spare.
        """
        del rid
        await self.info()
        self._fits(input_ids.size)
        slots = self._slots
        slot = slots.take(affinity, input_ids, ahead=True)
        if slot is None:
            return Usage(prompt_tokens=0, output_tokens=0)
        cached = read = 0
        try:
            while read < input_ids.size:
                await self._quiet.wait()
                part = input_ids[: read + _SLICE_TOKENS]
                reply = await self._answer({"prompt": part, "n_predict": 0, "id_slot": slot}, _SLICE_S)
                cached += max(0, min(reply.timings.cache_n or 0, part.size) - read)
                read = part.size
        finally:
            slots.release(slot)
        return Usage(prompt_tokens=input_ids.size, output_tokens=0, cached_tokens=cached)

    async def score(self, request: EngineRequest, labels: TokenIds) -> Scores:
        """Return how likely each of `labels` is right after the prompt; raise EngineError."""
        deadline, sent = Deadline(request.deadline_ms, self._clock), request.input_ids.size
        with self._decision():
            await self.info()
            self._fits(sent)
            with self._slot(request) as slot:
                body = {"prompt": request.input_ids, "n_predict": 1, "id_slot": slot, "temperature": 0.0}
                cached: int | None = None
                for most in (_LIKELY, _WHOLE_VOCABULARY):
                    reply = await self._answer({**body, "n_probs": most}, deadline.left_s())
                    cached = reply.timings.cache_n if cached is None else cached
                    logprobs = reply.first_logprobs(labels)
                    if logprobs is not None:
                        usage = Usage(sent, 1, cached, finish_reason="length")
                        return Scores(logprobs, usage, await self._answering())
        raise EngineError("engine_broke", f"{self._http.where} sent no log-probabilities of the label tokens")

    async def _read_info(self) -> EngineInfo:
        reply = parse(_Props, await self._http.get("/props"), self._http.where)
        slots, context = reply.total_slots or 1, reply.default_generation_settings.n_ctx
        if self._slots.count != slots:
            self._slots = Slots(slots)
        return EngineInfo(
            name=self.name,
            source="llm",
            model=PurePath(reply.model_alias or reply.model_path or "unknown").name,
            context_tokens=context,
            kv_capacity_tokens=None if context is None else context * slots,
            raw={"total_slots": slots, "n_ctx": context, "model_path": reply.model_path, "build_info": reply.build_info},
        )

    def _lost(self) -> None:
        super()._lost()
        self._slots = Slots(self._slots.count)

    async def _answer(self, body: dict[str, Any], timeout_s: float) -> _Completion:
        """Return an answer that is not streamed."""
        prompt = np.ascontiguousarray(body["prompt"])
        reply = await self._whole("/completion", dumps({**body, "prompt": prompt, "cache_prompt": True}), timeout_s)
        return self._completion(reply, prompt.size)

    def _completion(self, event: dict[str, Any], sent: int) -> _Completion:
        reply = parse(_Completion, event, self._http.where)
        self._whole_prompt(reply.tokens_evaluated or None, sent)
        return reply

    @contextlib.contextmanager
    def _decision(self) -> Iterator[None]:
        self._deciding += 1
        self._quiet.clear()
        try:
            yield
        finally:
            self._deciding -= 1
            if not self._deciding:
                self._quiet.set()

    @contextlib.contextmanager
    def _slot(self, request: EngineRequest) -> Iterator[int | None]:
        slots = self._slots
        slot = slots.take(request.affinity, request.input_ids)
        try:
            yield slot
        finally:
            if slot is not None:
                slots.release(slot)


def _body(request: EngineRequest, slot: int | None) -> bytes:
    sampling = request.sampling
    body: dict[str, Any] = {
        "prompt": np.ascontiguousarray(request.input_ids),
        "n_predict": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        **_WHOLE,
        "stream": True,
        "return_progress": True,
        "cache_prompt": True,
    }
    if slot is not None:
        body["id_slot"] = slot
    if sampling.temperature > 0 and sampling.seed is not None:
        body["seed"] = sampling.seed
    if sampling.stop is not None:
        body["stop"] = [sampling.stop]
    if sampling.json_schema is not None:
        body |= _constraint(sampling.json_schema)
    elif sampling.regex is not None:
        body["grammar"] = regex_grammar(sampling.regex)
    if request.labels is not None:
        body["n_probs"] = _LIKELY
    if sampling.ignore_eos:
        body["ignore_eos"] = True
    return dumps(body)


@lru_cache(maxsize=16)
def _constraint(schema: str) -> dict[str, Any]:
    try:
        return {"grammar": grammar(schema)}
    except ValueError as error:
        _log.info("schema_left_to_the_server", engine="llamacpp", detail=str(error))
        return {"json_schema": orjson.Fragment(schema)}
