"""SGLang's native API (0.5.x): token ids in, a stream of text out, aborted on the server when nobody waits for it any more.

The simulator speaks the same API. Field names are those of sglang 0.5.17, `managers/io_struct.py` and `entrypoints/`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final, NoReturn

import numpy as np
import structlog
from numpy.typing import NDArray

from services.core import metrics
from services.core.clock import Clock
from services.inference.engine import Capabilities, Chunk, EngineError, EngineInfo, EngineLoad, EngineRequest, Scores, TokenIds, Usage
from services.inference.http_client import Deadline, refusal
from services.inference.http_engine import HttpEngine, dumps
from services.inference.reply import Count, Measure, Reply, Text, parse

log = structlog.get_logger()

CAPABILITIES: Final = Capabilities(token_ids=True, prewarm=True, abort="by id", grammar=True, logprobs=True, cached_tokens=True, regex=True)

_ABORT_S = 1.0
_WARM_S = 60.0
_INFO_KEYS = (
    "attention_backend",
    "chunked_prefill_size",
    "context_length",
    "dtype",
    "enable_priority_scheduling",
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


class Meta(Reply):
    """What SGLang says of a call beside its text."""

    prompt_tokens: Count = None
    completion_tokens: Count = None
    cached_tokens: Count = None
    spec_accept_length: Measure = None
    queue_time: Measure = None
    finish_reason: Any = None
    output_token_ids_logprobs: Any = None

    @property
    def finish(self) -> Mapping[str, Any] | None:
        """Return why the answer ended, None while it goes on."""
        if isinstance(self.finish_reason, str):
            return {"type": self.finish_reason}
        return self.finish_reason if isinstance(self.finish_reason, dict) else None

    def first_logprobs(self, labels: TokenIds) -> NDArray[np.float64] | None:
        """Return the log-probabilities of `labels` as the first token, in their order; None when the server has not sent all of them."""
        try:
            by_id = {int(number): float(logprob) for logprob, number, *_ in self.output_token_ids_logprobs[0]}
            return np.array([by_id[label] for label in labels.tolist()])
        except (KeyError, IndexError, TypeError, ValueError):
            return None

    def usage(self, sent: int) -> Usage:
        """Return the usage of a call that was sent `sent` prompt tokens."""
        kind = (self.finish or {}).get("type")
        return Usage(
            prompt_tokens=sent if self.prompt_tokens is None else self.prompt_tokens,
            output_tokens=self.completion_tokens or 0,
            cached_tokens=self.cached_tokens,
            accept_length=self.spec_accept_length,
            queue_ms=None if self.queue_time is None else self.queue_time * 1000,
            finish_reason=kind if isinstance(kind, str) else None,
        )


class Generated(Reply):
    """An event of a stream, or a whole answer."""

    text: Text = ""
    meta_info: Meta


class SGLangEngine(HttpEngine):
    """One SGLang server, or the simulator."""

    kind = "sglang"
    capabilities = CAPABILITIES

    def __init__(
        self, url: str, clock: Clock, *, api_key: str | None = None, connect_timeout_ms: int = 1_000, scores: bool = False
    ) -> None:
        """Prepare for the server at `url`, which also scores when `scores` says so; raise ValueError for a bad address."""
        super().__init__(url, clock, api_key=api_key, connect_timeout_ms=connect_timeout_ms)
        self._in_flight: set[str] = set()
        self._aborts: set[asyncio.Task[None]] = set()
        self._scores = scores

    async def stream(self, request: EngineRequest) -> AsyncGenerator[Chunk]:
        """Yield the answer as it comes, the last chunk with `usage`; raise EngineError."""
        sent = request.input_ids.size
        self._fits(sent)
        body = generate_body(request, beside_scores=self._scores, priority=self._priority(background=request.background))
        labels = request.labels if self._scores else None
        deadline = Deadline(request.deadline_ms, self._clock)
        self._in_flight.add(request.rid)
        first = True
        reported_cached = False
        seen = 0
        ended = False
        try:
            async with contextlib.aclosing(self._events("/generate", body, deadline, request.trace_headers)) as events:
                async for info, batch in events:
                    if ended:
                        continue  # to the stream's own end, so that the connection can be used again
                    # The text is cumulative: of several events that came at once, the last says all.
                    reply = self._generated(batch[-1], sent)
                    meta = reply.meta_info
                    delta, seen = reply.text[seen:], max(seen, len(reply.text))
                    ended = meta.finish is not None
                    cached = None if reported_cached else meta.cached_tokens
                    reported_cached = reported_cached or cached is not None
                    logprobs = None if labels is None else meta.first_logprobs(labels)
                    if logprobs is not None:
                        labels = None
                    yield Chunk(delta, cached, meta.usage(sent) if ended else None, info if first else None, logprobs)
                    first = False
            if not ended:
                self._fail_cut_off(seen)
        except EngineError as error:
            if ended:
                return
            # What was never sent, or what the server itself has ended, needs no abort; what ran out of time, or was cut, does.
            ended = error.reason not in {"engine_timeout", "engine_broke", "prompt_cut"} or deadline.total_ms <= 0
            raise
        finally:
            # `close` has taken the call over when it is no longer among those in flight.
            if request.rid in self._in_flight and not ended:
                self._abort(request.rid)
            self._in_flight.discard(request.rid)

    async def warm(self, rid: str, affinity: str, input_ids: TokenIds) -> Usage:
        """Prefill `input_ids`, within 60 s; raise EngineError.

        `max_new_tokens` 0 is what SGLang itself sends to cache a common prefix (`tokenizer_manager.py`, parallel sampling): the
        request ends with its prefill, and without speculation not even a token is sampled.
        """
        del affinity
        more = {**(_BESIDE_SCORES if self._scores else {}), **self._priority(background=True)}
        body = _dumps(rid, input_ids, {"max_new_tokens": 0, "temperature": 0.0}, stream=False, **more)
        return (await self._generate(rid, body, _WARM_S, input_ids.size)).usage(input_ids.size)

    async def score(self, request: EngineRequest, labels: TokenIds) -> Scores:
        """Return how likely each of `labels` is right after the prompt; raise EngineError."""
        sent = request.input_ids.size
        sampling = {"max_new_tokens": 1, "temperature": 0.0}
        more = {"return_logprob": True, "token_ids_logprob": labels, **self._priority(background=request.background)}
        body = _dumps(request.rid, request.input_ids, sampling, stream=False, **more)
        meta = await self._generate(request.rid, body, Deadline(request.deadline_ms, self._clock).left_s(), sent)
        logprobs = meta.first_logprobs(labels)
        if logprobs is None:
            raise EngineError("engine_broke", f"{self._http.where} sent no log-probabilities of the label tokens")
        return Scores(logprobs, meta.usage(sent), await self._answering())

    async def load(self, affinity: str | None = None) -> EngineLoad | None:
        """Return how busy the server is, over all its data-parallel ranks, None when it has no /v1/loads; raise EngineError."""
        del affinity
        try:
            reply = await self._http.get("/v1/loads?include=core")
        except EngineError as error:
            if error.reason == "engine_refused":
                return None
            raise
        ranks = reply.get("loads") if isinstance(reply, dict) else None
        if not isinstance(ranks, list):
            return None
        parsed = [parse(_Rank, rank, self._http.where) for rank in ranks]
        return EngineLoad(
            running=sum(rank.num_running_reqs or 0 for rank in parsed),
            waiting=sum(rank.num_waiting_reqs or 0 for rank in parsed),
            waiting_uncached_tokens=sum(rank.num_waiting_uncached_tokens or 0 for rank in parsed),
        )

    async def close(self) -> None:
        """Abort what is in flight, wait for it no longer than 1 s, and close the connections; calls in flight raise EngineError."""
        for rid in self._in_flight:
            self._abort(rid)
        self._in_flight.clear()
        self._http.end_waits()
        if self._aborts:
            await asyncio.wait(self._aborts)
        await self._http.close()

    async def _read_info(self) -> EngineInfo:
        reply = await self._http.get("/server_info")
        if not isinstance(reply, dict):
            raise EngineError("engine_broke", f"{self._http.where}/server_info answered {str(reply)[:80]!r}; expected an object")
        if reply.get("incremental_streaming_output"):
            raise EngineError(
                "engine_refused",
                f"{self._http.where} runs with --incremental-streaming-output, where text is not cumulative: start without it",
            )
        return EngineInfo(
            name=self.name,
            source="simulator" if reply.get("simulator") is True else "llm",
            model=str(reply.get("served_model_name") or reply.get("model_path") or "unknown"),
            # Without --context-length the server says only how long an input may be, which is a few tokens less.
            context_tokens=_int(reply, "context_length") or _int(reply, "max_req_input_len"),
            kv_capacity_tokens=_int(reply, "max_total_num_tokens") or _int(reply, "max_total_tokens"),
            raw={key: reply[key] for key in _INFO_KEYS if key in reply},
        )

    async def _generate(self, rid: str, body: bytes, timeout_s: float, sent: int) -> Meta:
        """Return what the server says of an answer that is not streamed."""
        self._fits(sent)
        ended = False
        try:
            reply = await self._whole("/generate", body, timeout_s)
            ended = True
        except EngineError as error:
            ended = error.reason != "engine_timeout"
            raise
        finally:
            if not ended:
                self._abort(rid)
        return self._generated(reply, sent).meta_info

    def _priority(self, *, background: bool) -> dict[str, int]:
        """Return the `priority` of a call, which only a server started with `--enable-priority-scheduling` takes."""
        by_priority = self._info is not None and self._info.raw.get("enable_priority_scheduling") is True
        return {"priority": 0 if background else 1} if by_priority else {}

    def _abort(self, rid: str) -> None:
        # In a task of its own: the caller has no time left, or is being cancelled, and must not wait for a hung server.
        task = asyncio.get_running_loop().create_task(self._send_abort(rid), name=f"abort {rid}")
        self._aborts.add(task)
        task.add_done_callback(self._aborts.discard)

    async def _send_abort(self, rid: str) -> None:
        try:
            await self._http.post("/abort_request", dumps({"rid": rid}), _ABORT_S)
        except EngineError as error:
            metrics.ENGINE_ABORTS.labels(self.name, "lost").inc()
            log.warning("abort_not_delivered", engine=self.name, rid=rid, reason=error.reason, detail=error.detail)
        else:
            metrics.ENGINE_ABORTS.labels(self.name, "delivered").inc()

    def _fail_cut_off(self, characters: int) -> NoReturn:
        raise EngineError("engine_broke", f"{self._http.where} ended the stream after {characters} characters without a finish reason")

    def _generated(self, event: dict[str, Any], sent: int) -> Generated:
        """Return an event; raise EngineError for the server's own error, and when it read less than `sent` tokens."""
        reply = parse(Generated, event, self._http.where)
        finish = reply.meta_info.finish
        if finish is not None and isinstance(finish.get("status_code"), int):
            raise refusal(finish["status_code"], str(finish.get("message")), self._http.where)
        self._whole_prompt(reply.meta_info.prompt_tokens, sent)
        return reply


class _Rank(Reply):
    num_running_reqs: Count = None
    num_waiting_reqs: Count = None
    num_waiting_uncached_tokens: Count = None


_BESIDE_SCORES: Final[dict[str, Any]] = {"return_logprob": True, "token_ids_logprob": [0]}
"""What a call asks for that may be prefilled together with one that is scored: stock SGLang 0.5.17 ends on a batch in which some calls ask
for log-probabilities of given ids and others do not (`'list' object has no attribute 'tolist'`, batch_result_processor.py)."""


def generate_body(request: EngineRequest, *, beside_scores: bool = False, priority: Mapping[str, int] | None = None) -> bytes:
    """Return the JSON of `POST /generate` for `request`; 32K ids take about 0.4 ms.

    `beside_scores` is for servers that also score: see `_BESIDE_SCORES`. They are asked for the request's labels as well. `priority` is
    the field of that name, for servers that schedule by it.
    """
    asked = request.sampling
    sampling: dict[str, Any] = {"max_new_tokens": asked.max_new_tokens, "temperature": asked.temperature}
    if asked.temperature > 0:
        sampling["top_p"] = asked.top_p
        if asked.seed is not None:
            sampling["sampling_seed"] = asked.seed  # heeded with --enable-deterministic-inference
    if asked.json_schema is not None:
        sampling["json_schema"] = asked.json_schema
    if asked.regex is not None:
        sampling["regex"] = asked.regex
    if asked.stop is not None:
        sampling["stop"] = asked.stop
    if asked.ignore_eos:
        sampling["ignore_eos"] = True
    more: dict[str, Any] = dict(_BESIDE_SCORES) if beside_scores else {}
    if beside_scores and request.labels is not None:
        more["token_ids_logprob"] = np.ascontiguousarray(request.labels)
    return _dumps(request.rid, request.input_ids, sampling, stream=True, **more, **(priority or {}))


def _dumps(rid: str, input_ids: TokenIds, sampling: Mapping[str, Any], *, stream: bool, **more: Any) -> bytes:
    return dumps({"rid": rid, "input_ids": np.ascontiguousarray(input_ids), "sampling_params": sampling, "stream": stream, **more})


def _int(reply: Mapping[str, Any], key: str) -> int | None:
    value = reply.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
