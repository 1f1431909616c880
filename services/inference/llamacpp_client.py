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
from pydantic import Field

from services.core.clock import Clock
from services.inference.engine import Capabilities, Chunk, EngineError, EngineInfo, EngineLoad, EngineRequest, Scores, TokenIds, Usage
from services.inference.gbnf import grammar
from services.inference.reply import Count, Name, Number, Reply, Table, Text, loads, parse
from services.inference.slots import Slots
from services.inference.sse import DONE
from services.inference.wire import Deadline, Wire, error_words, refusal

_log = structlog.get_logger()

CAPABILITIES: Final = Capabilities(token_ids=True, prewarm=True, abort="by closing", grammar=True, logprobs=True, cached_tokens=True)

_SLICE_TOKENS: Final = 256
"""A prefix is sent ahead in slices of this many new tokens, none while a decision waits: a CPU prefills some 100 tokens a second."""
_SLICE_S: Final = 60.0
_LIKELY: Final = 256
"""The most likely tokens, among which the labels of a trained model are: their list is 20 KB, the whole vocabulary's megabytes."""
_WHOLE_VOCABULARY: Final = 10_000_000
_GREEDY: Final = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}
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


class _Generation(Reply):
    n_ctx: Count = None


class _Props(Reply):
    total_slots: Count = None
    model_alias: Name = None
    model_path: Name = None
    build_info: Name = None
    default_generation_settings: Annotated[_Generation, Table] = Field(default_factory=_Generation)


class LlamaCppEngine:
    """One llama.cpp server."""

    def __init__(self, url: str, clock: Clock, *, api_key: str | None = None, connect_timeout_ms: int = 1_000) -> None:
        """Prepare for the server at `url`; nothing is opened before the first call. Raise ValueError for a bad address."""
        # llama.cpp closes a connection after a stream, whatever its headers say: the next call would break on it.
        self._wire = Wire(url, api_key=api_key, connect_timeout_ms=connect_timeout_ms, keep_alive=False)
        self._clock = clock
        self._info: EngineInfo | None = None
        self._slots = Slots(1)
        self._deciding = 0
        self._quiet = asyncio.Event()
        """Set while no decision waits for the server."""
        self._quiet.set()

    @property
    def name(self) -> str:
        """Return `llamacpp@host:port`."""
        return f"llamacpp@{self._wire.where}"[:64]

    @property
    def capabilities(self) -> Capabilities:
        """Return what llama.cpp's server can do."""
        return CAPABILITIES

    async def info(self) -> EngineInfo:
        """Return model, context and slots, asked once for each life of the server; raise EngineError."""
        if self._info is None:
            said = parse(_Props, await self._wire.get("/props"), self._wire.where)
            slots, context = said.total_slots or 1, said.default_generation_settings.n_ctx
            model = said.model_alias or said.model_path or "unknown"
            self._slots = Slots(slots)
            self._info = EngineInfo(
                name=self.name,
                source="llm",
                model=PurePath(model).name,
                context_tokens=context,
                kv_capacity_tokens=None if context is None else context * slots,
                raw={"total_slots": slots, "n_ctx": context, "model_path": said.model_path, "build_info": said.build_info},
            )
        return self._info

    async def stream(self, request: EngineRequest) -> AsyncGenerator[Chunk]:
        """Yield the answer as it comes, the last chunk with `usage`; raise EngineError."""
        deadline = Deadline(request.deadline_ms, self._clock)
        with self._decision():
            await self.info()
            async with contextlib.aclosing(self._chunks(request, deadline)) as chunks:
                async for chunk in chunks:
                    yield chunk

    async def warm(self, rid: str, affinity: str, input_ids: TokenIds) -> Usage:
        """Prefill `input_ids` in slices, none while a decision waits; raise EngineError.

        Usage is empty when the server has no slot to spare.
        """
        del rid
        await self.info()
        slots = self._slots
        slot = slots.take(affinity, input_ids, ahead=True)
        if slot is None:
            return Usage(prompt_tokens=0, output_tokens=0)
        cached = read = 0
        try:
            while read < input_ids.size:
                await self._quiet.wait()
                part = input_ids[: read + _SLICE_TOKENS]
                said = await self._whole({"prompt": part, "n_predict": 0, "id_slot": slot}, _SLICE_S, part.size)
                cached += max(0, min(said.timings.cache_n or 0, part.size) - read)
                read = part.size
        finally:
            slots.release(slot)
        return Usage(prompt_tokens=input_ids.size, output_tokens=0, cached_tokens=cached)

    async def score(self, request: EngineRequest, labels: TokenIds) -> Scores:
        """Return how likely each of `labels` is right after the prompt; raise EngineError."""
        deadline = Deadline(request.deadline_ms, self._clock)
        with self._decision():
            await self.info()
            with self._slot(request) as slot:
                body = {"prompt": request.input_ids, "n_predict": 1, "id_slot": slot, "temperature": 0.0}
                cached: int | None = None
                for most in (_LIKELY, _WHOLE_VOCABULARY):
                    said = await self._whole({**body, "n_probs": most}, deadline.left_s(), request.input_ids.size)
                    cached = said.timings.cache_n if cached is None else cached
                    found = {one.id: one.logprob for position in said.completion_probabilities[:1] for one in position.top_logprobs}
                    logprobs = [found.get(label) for label in labels.tolist()]
                    if None not in logprobs:
                        usage = Usage(request.input_ids.size, 1, cached, finish_reason="length")
                        return Scores(np.array(logprobs, dtype=np.float64), usage)
        raise EngineError("engine_broke", f"{self._wire.where} sent no log-probabilities of the label tokens")

    async def load(self, affinity: str | None = None) -> EngineLoad | None:
        """Return None: what is sent ahead waits for decisions by itself."""
        del affinity
        return None

    async def watch(self) -> None:
        """Do nothing: whoever guards the address watches over it."""

    async def close(self) -> None:
        """Close the connections; calls in flight end on the server and raise EngineError here."""
        await self._wire.close()

    async def _chunks(self, request: EngineRequest, deadline: Deadline) -> AsyncGenerator[Chunk]:
        ended = said_cached = False
        with self._slot(request) as slot, self._forgetful():
            async with contextlib.aclosing(
                self._wire.events("/completion", _body(request, slot), deadline, request.trace_headers)
            ) as events:
                async for payloads in events:
                    for payload in payloads:
                        if payload == DONE or ended:
                            continue
                        said = self._completion(loads(payload, self._wire.where), request.input_ids.size)
                        ended = said.stop
                        cached = said.timings.cache_n if ended else said.prompt_progress.cache
                        usage = _usage(said, request.input_ids.size) if ended else None
                        yield Chunk(said.content, None if said_cached else cached, usage)
                        said_cached = said_cached or cached is not None
            if not ended:
                raise EngineError("engine_broke", f"{self._wire.where} ended the stream without a last event")

    async def _whole(self, body: dict[str, Any], timeout_s: float, sent: int) -> _Completion:
        """Return an answer that is not streamed."""
        if timeout_s <= 0:
            raise EngineError("engine_timeout", f"the deadline had passed {-timeout_s * 1000:.0f} ms before {self._wire.where} was asked")
        with self._forgetful():
            answer = await self._wire.post("/completion", _dumps({**body, "cache_prompt": True}), timeout_s)
            return self._completion(loads(answer, self._wire.where), sent)

    def _completion(self, said: object, sent: int) -> _Completion:
        """Return a reply; raise EngineError for the server's own error, and when it read less than `sent` tokens."""
        if isinstance(said, dict) and said.get("error") is not None:
            error = said["error"]
            code = error.get("code") if isinstance(error, dict) else None
            raise refusal(code if isinstance(code, int) else 500, error_words(orjson.dumps(said)), self._wire.where)
        found = parse(_Completion, said, self._wire.where)
        if found.tokens_evaluated is not None and 0 < found.tokens_evaluated < sent:
            raise EngineError("prompt_cut", f"{self._wire.where} read {found.tokens_evaluated:,} of {sent:,} prompt tokens")
        return found

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

    @contextlib.contextmanager
    def _forgetful(self) -> Iterator[None]:
        """After a lost connection another server may answer, with another model, other slots and empty caches."""
        try:
            yield
        except EngineError as error:
            if error.reason in {"engine_unreachable", "engine_broke"}:
                self._info = None
            raise


def _usage(said: _Completion, sent: int) -> Usage:
    finish = {"eos": "stop", "word": "stop", "limit": "length"}.get(said.stop_type or "", said.stop_type)
    return Usage(
        prompt_tokens=said.tokens_evaluated or sent,
        output_tokens=said.tokens_predicted or 0,
        cached_tokens=said.timings.cache_n,
        finish_reason=finish,
    )


def _body(request: EngineRequest, slot: int | None) -> bytes:
    sampling = request.sampling
    body: dict[str, Any] = {
        "prompt": request.input_ids,
        "n_predict": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        **_GREEDY,
        "stream": True,
        "return_progress": True,
        "cache_prompt": True,
    }
    if slot is not None:
        body["id_slot"] = slot
    if sampling.json_schema is not None:
        body |= _constraint(sampling.json_schema)
    if sampling.ignore_eos:
        body["ignore_eos"] = True
    return _dumps(body)


@lru_cache(maxsize=16)
def _constraint(schema: str) -> dict[str, Any]:
    try:
        return {"grammar": grammar(schema)}
    except ValueError as error:
        _log.info("schema_left_to_the_server", engine="llamacpp", detail=str(error))
        return {"json_schema": orjson.Fragment(schema)}


def _dumps(body: dict[str, Any]) -> bytes:
    return orjson.dumps({**body, "prompt": np.ascontiguousarray(body["prompt"])}, option=orjson.OPT_SERIALIZE_NUMPY)
