"""SGLang's native API (0.5.x): token ids in, a stream of text out, aborted on the server when nobody waits for it any more.

The simulator speaks the same API. Field names are those of sglang 0.5.17, `managers/io_struct.py` and `entrypoints/`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final, NoReturn

import numpy as np
import orjson
import structlog

from services.core import metrics
from services.core.clock import Clock
from services.inference.engine import Capabilities, Chunk, EngineError, EngineInfo, EngineLoad, EngineRequest, Scores, TokenIds, Usage
from services.inference.sse import DONE
from services.inference.wire import Deadline, Wire, error_words, refusal

log = structlog.get_logger()

_ABORT_S = 1.0
_WARM_S = 60.0
_INFO_KEYS = (
    "attention_backend",
    "chunked_prefill_size",
    "context_length",
    "dtype",
    "max_req_input_len",
    "max_running_requests",
    "max_total_num_tokens",
    "model_path",
    "page_size",
    "quantization",
    "served_model_name",
    "simulator",
    "speculative_algorithm",
    "speculative_draft_model_path",
    "speculative_eagle_topk",
    "speculative_num_draft_tokens",
    "speculative_num_steps",
    "version",
)
"""What of /server_info is kept: the whole holds all of the server's arguments, its api_key among them."""


CAPABILITIES: Final = Capabilities(token_ids=True, prewarm=True, abort="by id", grammar=True, logprobs=True, cached_tokens=True)


class SGLangEngine:
    """One SGLang server, or the simulator."""

    def __init__(self, url: str, clock: Clock, *, api_key: str | None = None, connect_timeout_ms: int = 1_000) -> None:
        """Prepare for the server at `url`; nothing is opened before the first call. Raise ValueError for a bad address."""
        self._wire = Wire(url, api_key=api_key, connect_timeout_ms=connect_timeout_ms)
        self._clock = clock
        self._info: EngineInfo | None = None
        self._flying: set[str] = set()
        self._aborts: set[asyncio.Task[None]] = set()

    @property
    def name(self) -> str:
        """Return `sglang@host:port`."""
        return f"sglang@{self._wire.where}"[:64]

    @property
    def capabilities(self) -> Capabilities:
        """Return what SGLang can do, which is all there is."""
        return CAPABILITIES

    async def info(self) -> EngineInfo:
        """Return what the server says of itself, asked once; raise EngineError."""
        if self._info is None:
            said = await self._wire.get("/server_info")
            if not isinstance(said, dict):
                raise EngineError("engine_broke", f"{self._wire.where}/server_info answered {str(said)[:80]!r}; expected an object")
            if said.get("incremental_streaming_output"):
                raise EngineError(
                    "engine_refused",
                    f"{self._wire.where} runs with --incremental-streaming-output, where text is not cumulative: start without it",
                )
            self._info = EngineInfo(
                name=self.name,
                source="simulator" if said.get("simulator") is True else "llm",
                model=str(said.get("served_model_name") or said.get("model_path") or "unknown"),
                # Without --context-length the server says only how long an input may be, which is a few tokens less.
                context_tokens=_int(said, "context_length") or _int(said, "max_req_input_len"),
                kv_capacity_tokens=_int(said, "max_total_num_tokens") or _int(said, "max_total_tokens"),
                raw={key: said[key] for key in _INFO_KEYS if key in said},
            )
        return self._info

    async def stream(self, request: EngineRequest) -> AsyncGenerator[Chunk]:
        """Yield the answer as it comes, the last chunk with `usage`; raise EngineError."""
        body = generate_body(request)
        deadline = Deadline(request.deadline_ms, self._clock)
        self._flying.add(request.rid)
        told_cached = False
        seen = 0
        ended = False
        events = self._wire.events("/generate", body, deadline, request.trace_headers)
        try:
            async for payloads in events:
                if ended:
                    continue  # to the stream's own end, so that the connection can be used again
                # The text is cumulative: of several events that came at once, the last says all.
                said = self._loads([payload for payload in payloads if payload != DONE])
                if said is None:
                    break
                meta = said["meta_info"]
                text = said.get("text") or ""
                delta, seen = text[seen:], max(seen, len(text))
                finish = meta.get("finish_reason")
                ended = finish is not None
                cached = None if told_cached else meta.get("cached_tokens")
                told_cached = told_cached or cached is not None
                yield Chunk(delta, cached, self._usage(meta, request.input_ids.size) if ended else None)
            if not ended:
                self._fail_cut_off(seen)
        except EngineError as error:
            if ended:
                return
            # What was never sent, or what the server itself has ended, needs no abort; what ran out of time, or was cut, does.
            ended = error.reason not in {"engine_timeout", "engine_broke"} or deadline.total_ms <= 0
            raise
        finally:
            await events.aclose()
            # `close` has taken the call over when it is no longer among those in flight.
            if request.rid in self._flying and not ended:
                self._abort(request.rid)
            self._flying.discard(request.rid)

    async def warm(self, rid: str, affinity: str, input_ids: TokenIds) -> Usage:
        """Prefill `input_ids`, within 60 s; raise EngineError.

        `max_new_tokens` 0 is what SGLang itself sends to cache a common prefix (`tokenizer_manager.py`, parallel sampling): the
        request ends with its prefill, and without speculation not even a token is sampled.
        """
        del affinity
        body = _dumps(rid, input_ids, {"max_new_tokens": 0, "temperature": 0.0}, stream=False)
        return self._usage(await self._whole(rid, body, _WARM_S), input_ids.size)

    async def score(self, request: EngineRequest, labels: TokenIds) -> Scores:
        """Return how likely each of `labels` is right after the prompt; raise EngineError."""
        sampling = {"max_new_tokens": 1, "temperature": 0.0}
        body = _dumps(request.rid, request.input_ids, sampling, stream=False, return_logprob=True, token_ids_logprob=labels)
        meta = await self._whole(request.rid, body, Deadline(request.deadline_ms, self._clock).left_s())
        try:
            by_id = {int(number): float(logprob) for logprob, number, *_ in meta["output_token_ids_logprobs"][0]}
            logprobs = np.array([by_id[label] for label in labels.tolist()])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise EngineError("engine_broke", f"{self._wire.where} sent no log-probabilities of the label tokens") from error
        return Scores(logprobs, self._usage(meta, request.input_ids.size))

    async def load(self, affinity: str | None = None) -> EngineLoad | None:
        """Return how busy the server is, over all its data-parallel ranks, None when it has no /v1/loads; raise EngineError."""
        del affinity
        try:
            said = await self._wire.get("/v1/loads?include=core")
        except EngineError as error:
            if error.reason == "engine_refused":
                return None
            raise
        ranks = said.get("loads") if isinstance(said, dict) else None
        if not isinstance(ranks, list):
            return None
        return EngineLoad(
            running=sum(rank.get("num_running_reqs", 0) for rank in ranks),
            waiting=sum(rank.get("num_waiting_reqs", 0) for rank in ranks),
            waiting_uncached_tokens=sum(rank.get("num_waiting_uncached_tokens", 0) for rank in ranks),
        )

    async def watch(self) -> None:
        """Do nothing: whoever guards the address watches over it."""

    async def close(self) -> None:
        """Abort what is in flight, wait for it no longer than 1 s, and close the connections; calls in flight raise EngineError."""
        for rid in self._flying:
            self._abort(rid)
        self._flying.clear()
        self._wire.interrupt()
        if self._aborts:
            await asyncio.wait(self._aborts)
        await self._wire.close()

    async def _whole(self, rid: str, body: bytes, timeout_s: float) -> dict[str, Any]:
        """Return the `meta_info` of an answer that is not streamed."""
        ended = False
        try:
            answer = await self._wire.post("/generate", body, timeout_s)
            ended = True
        except EngineError as error:
            ended = error.reason != "engine_timeout"
            raise
        finally:
            if not ended:
                self._abort(rid)
        said = self._loads([answer])
        if said is None:
            raise EngineError("engine_broke", f"{self._wire.where} answered nothing")
        meta: dict[str, Any] = said["meta_info"]
        return meta

    def _abort(self, rid: str) -> None:
        # In a task of its own: the caller has no time left, or is being cancelled, and must not wait for a hung server.
        task = asyncio.get_running_loop().create_task(self._send_abort(rid), name=f"abort {rid}")
        self._aborts.add(task)
        task.add_done_callback(self._aborts.discard)

    async def _send_abort(self, rid: str) -> None:
        try:
            await self._wire.post("/abort_request", orjson.dumps({"rid": rid}), _ABORT_S)
        except EngineError as error:
            metrics.ENGINE_ABORTS.labels(self.name, "lost").inc()
            log.warning("abort not delivered", engine=self.name, rid=rid, reason=error.reason, detail=error.detail)
        else:
            metrics.ENGINE_ABORTS.labels(self.name, "delivered").inc()

    def _fail_cut_off(self, characters: int) -> NoReturn:
        raise EngineError("engine_broke", f"{self._wire.where} ended the stream after {characters} characters without a finish reason")

    def _loads(self, payloads: list[bytes]) -> dict[str, Any] | None:
        if not payloads:
            return None
        try:
            said = orjson.loads(payloads[-1])
        except orjson.JSONDecodeError as error:
            raise EngineError("engine_broke", f"{self._wire.where} sent what is not JSON: {payloads[-1][:80]!r}") from error
        if not isinstance(said, dict) or not isinstance(said.get("meta_info"), dict):
            code = said["error"].get("code") if isinstance(said, dict) and isinstance(said.get("error"), dict) else None
            raise refusal(code if isinstance(code, int) else 500, error_words(payloads[-1]), self._wire.where)
        finish = said["meta_info"].get("finish_reason")
        if isinstance(finish, dict) and isinstance(finish.get("status_code"), int):
            raise refusal(finish["status_code"], str(finish.get("message")), self._wire.where)
        return said

    @staticmethod
    def _usage(meta: Mapping[str, Any], prompt_tokens: int) -> Usage:
        finish = meta.get("finish_reason")
        queue_s = meta.get("queue_time")
        return Usage(
            prompt_tokens=meta.get("prompt_tokens", prompt_tokens),
            output_tokens=meta.get("completion_tokens", 0),
            cached_tokens=meta.get("cached_tokens"),
            accept_length=meta.get("spec_accept_length"),
            queue_ms=None if queue_s is None else queue_s * 1000,
            finish_reason=finish.get("type") if isinstance(finish, dict) else None,
        )


def generate_body(request: EngineRequest) -> bytes:
    """Return the JSON of `POST /generate` for `request`; 32K ids take about 0.4 ms."""
    sampling: dict[str, Any] = {"max_new_tokens": request.sampling.max_new_tokens, "temperature": request.sampling.temperature}
    if request.sampling.json_schema is not None:
        sampling["json_schema"] = request.sampling.json_schema
    if request.sampling.ignore_eos:
        sampling["ignore_eos"] = True
    return _dumps(request.rid, request.input_ids, sampling, stream=True)


def _dumps(rid: str, input_ids: TokenIds, sampling: Mapping[str, Any], *, stream: bool, **more: Any) -> bytes:
    return orjson.dumps(
        {"rid": rid, "input_ids": np.ascontiguousarray(input_ids), "sampling_params": sampling, "stream": stream, **more},
        option=orjson.OPT_SERIALIZE_NUMPY,
    )


def _int(said: Mapping[str, Any], key: str) -> int | None:
    value = said.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
