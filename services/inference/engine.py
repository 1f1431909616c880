"""The engine protocol: token ids in, a stream of text out, with what the engine says of its caches and its speculation.

This is the one module of `services/inference` that `services/fusion` may import.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

TokenIds = NDArray[np.int32]
THOUGHT_END: Final = "</think>"
"""Stands between a thought and the answer."""
EngineSource = Literal["llm", "rules", "simulator"]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do; a worker leaves out what it cannot."""

    token_ids: bool
    """A prompt is sent as token ids; as chat messages otherwise."""
    prewarm: bool
    """A prefix can be sent ahead, so that later prompts hit its cache."""
    abort: Literal["by id", "by closing", "no"]
    """How a call that nobody waits for any more ends on the engine."""
    grammar: bool
    """Answers are constrained by `Sampling.json_schema`."""
    logprobs: bool
    """`score` gives the log-probabilities of label tokens, and `stream` those of the first token where `EngineRequest.labels` asks."""
    cached_tokens: bool
    """Usage says how many prompt tokens came from the engine's cache."""
    regex: bool = False
    """Answers are constrained by `Sampling.regex`."""
    prewarm_yields: bool = False
    """A prefix that is being sent ahead stops when the call ends; elsewhere what the engine has begun is computed to its end."""


class EngineError(Exception):
    """The engine did not answer. `reason` is one of the names below; the text says what happened, with the engine's words."""

    def __init__(self, reason: str, detail: str) -> None:
        """`reason` is one of these.

        `engine_unreachable engine_refused engine_timeout engine_broke engine_open` (breaker) `engine_overloaded`, and `prompt_cut` when
        the engine read less than it was sent.
        """
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason}: {detail}")


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to sample: `max_new_tokens`, `temperature`, and what the answer must match where the engine can constrain it.

    At most one of `json_schema` (JSON text) and `regex` is given. `regex` matches the whole answer; it holds literals, classes, groups,
    alternatives, `?` and `{m,n}` only, which every engine's grammar has.
    """

    max_new_tokens: int
    temperature: float = 0.0
    """0 takes the likeliest token each time; `top_p` and `seed` count above 0 only."""
    json_schema: str | None = None
    regex: str | None = None
    ignore_eos: bool = False
    """Go on to `max_new_tokens` whatever the model says, for measurements."""
    top_p: float = 1.0
    """Sample among the likeliest tokens that have this much probability together."""
    seed: int | None = None
    """The same prompt and seed give the same answer, as far as the engine computes the same numbers again; 0 to 2**31 - 1."""
    stop: str | None = None
    """End before this text, which the answer does not hold then (engines that take token ids)."""


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """One call.

    `rid` is a fixed-length id (32 hex digits), by which the call can be aborted. `input_ids` is the whole prompt, int32, shape
    (tokens,). `text` renders the same prompt as text, for engines that take no ids: it returns (system, user). `view` is what
    the prompt says as plain values, for the rules engine: `atr`, `close` and the latest features by name.
    `affinity` is the symbol, by which several engines share the work.
    """

    rid: str
    affinity: str
    mode: Literal["flash", "fast", "deep"]
    input_ids: TokenIds
    sampling: Sampling
    deadline_ms: int
    """The last moment, on the caller's wall clock in milliseconds, at which an answer is of use."""
    text: Callable[[], tuple[str, str]]
    view: Mapping[str, float]
    trace_headers: Mapping[str, str] = field(default_factory=dict)
    labels: TokenIds | None = None
    """Tokens whose log-probabilities as the answer's first token are wanted, int32, shape (labels,)."""
    background: bool = False
    """No decision waits for this call: an engine that schedules by priority lets decisions go first."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What the engine said of a call once it had ended, None where it does not say.

    `accept_length` is the mean number of tokens a verification step yielded, the bonus token included.
    """

    prompt_tokens: int
    output_tokens: int
    cached_tokens: int | None = None
    accept_length: float | None = None
    queue_ms: float | None = None
    finish_reason: str | None = None
    """`stop`, `length` (cut off) or `abort`."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of an answer: `text` is what came since the last chunk; `usage` is set on the last one.

    `text` of the first chunks may be empty. `cached_tokens` is given as soon as the engine says it (SGLang: with the first token).
    """

    text: str
    cached_tokens: int | None = None
    usage: Usage | None = None
    engine: EngineInfo | None = None
    """Which engine answers, on the first chunk; of several behind one address list the one that was asked."""
    logprobs: NDArray[np.float64] | None = None
    """Of `EngineRequest.labels`, natural logarithms, shape (labels,), on the chunk of the first token; None where the engine gives none."""


@dataclass(frozen=True, slots=True)
class Scores:
    """How likely each label is as the next token.

    `logprobs` are natural logarithms over the whole vocabulary, at temperature 1 and without a grammar, float64, shape (labels,).
    """

    logprobs: NDArray[np.float64]
    usage: Usage
    engine: EngineInfo | None = None
    """Which engine answered."""


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine is: `model` as it names it, its context length and KV capacity in tokens where it says so."""

    name: str
    source: EngineSource
    model: str
    context_tokens: int | None = None
    kv_capacity_tokens: int | None = None
    raw: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """How busy an engine is: running and waiting calls, and waiting prompt tokens that are not cached."""

    running: int
    waiting: int
    waiting_uncached_tokens: int


class Engine(Protocol):
    """Something that answers prompts."""

    @property
    def name(self) -> str:
        """Return the engine's name for people, metrics and messages: at most 64 characters, no credentials."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """Return what the engine can do."""
        ...

    async def info(self) -> EngineInfo:
        """Return what the engine is, asking it when that is not known yet; raise EngineError."""
        ...

    def stream(self, request: EngineRequest) -> AsyncGenerator[Chunk, None]:
        """Yield the answer as it comes, the last chunk with `usage`; raise EngineError.

        Closing the iterator early (cancellation included) aborts the call on the engine as well.
        """
        ...

    async def warm(self, rid: str, affinity: str, input_ids: TokenIds) -> Usage:
        """Have the engine prefill `input_ids` so that later prompts starting with them hit its cache; raise EngineError."""
        ...

    async def score(self, request: EngineRequest, labels: TokenIds) -> Scores:
        """Return how likely each of `labels` is right after the prompt; raise EngineError, `engine_refused` without the capability.

        `labels` are distinct token ids, int32, shape (labels,). Of `request.sampling` nothing is used.
        """
        ...

    async def load(self, affinity: str | None = None) -> EngineLoad | None:
        """Return how busy the engine (that serves `affinity`) is, None when it does not say."""
        ...

    async def watch(self) -> None:
        """See to it that an engine which nobody asks still shows whether it answers; run it beside the calls, cancel to end.

        A server's health page answers while its GPU hangs: only tokens tell.
        """
        ...

    async def close(self) -> None:
        """Close connections; calls in flight raise EngineError."""
        ...
