"""SGLang's client, writing down when each token of each call arrived; it can also hold calls to a given length.

The worker's audit says when a decision was made, by the stage; only the engine's own count says at which token. Where accepted tokens are
forced the text is noise: a given answer can take its place, so that the worker publishes when the engine has made as many tokens.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from services.core.clock import Clock
from services.inference.engine import Chunk, EngineRequest
from services.inference.sglang_client import Generated, SGLangEngine

_DECISION_END = re.compile(r',\s*"rationale"\s*:|\A[^{\n]+\n')
"""Of an answer in JSON or on a line."""


class Length(NamedTuple):
    """An answer's length in tokens: up to where its decision part was complete, and in all."""

    decision: int
    whole: int


@dataclass(slots=True)
class Call:
    """One call, times in milliseconds of the wall clock."""

    prompt_hash: str
    sent_ms: float
    length: Length | None
    """What the answer was held to, None when it ended by itself."""
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    """(when, output tokens so far) of everything that arrived."""
    text: str = ""
    decision_tokens: int | None = None
    """Output tokens so far when the decision part was complete."""
    meta: dict[str, Any] = field(default_factory=dict)

    def token_at_ms(self, token: int) -> float | None:
        """Return when the `token`-th token of the answer had arrived, None when it never did."""
        return next((at for at, tokens in self.arrivals if tokens >= token), None)

    @property
    def finish(self) -> str | None:
        """Return `stop` or `length`, None for a call that was given up."""
        reason = self.meta.get("finish_reason")
        return reason.get("type") if isinstance(reason, dict) else None


class RecordingEngine(SGLangEngine):
    """An `SGLangEngine` that keeps every call in `calls`, by the prompt's hash as the audit has it."""

    def __init__(self, url: str, clock: Clock, length: Length | None, *, scores: bool = False, answer: str | None = None) -> None:
        """With `length` every call is held to it, whatever the model says, and `answer` takes its text's place."""
        super().__init__(url, clock, scores=scores)
        self.calls: dict[str, Call] = {}
        self._answer = answer
        self._length = length
        self._flights: dict[str, Call] = {}

    async def stream(self, request: EngineRequest) -> AsyncGenerator[Chunk]:
        """Stream the call and write it down."""
        length = self._length
        digest = hashlib.sha256(request.input_ids.astype("<i4", copy=False).tobytes()).hexdigest()
        self.calls[digest] = self._flights[request.rid] = Call(digest, time.time() * 1000, length)
        if length is not None:
            free = replace(request.sampling, max_new_tokens=length.whole, ignore_eos=True, regex=None, json_schema=None)
            request = replace(request, sampling=free)
        try:
            async with aclosing(super().stream(request)) as chunks:
                async for chunk in chunks:
                    yield chunk if self._answer is None or length is None else self._in_place(chunk, self._flights[request.rid], length)
        finally:
            del self._flights[request.rid]

    def _in_place(self, chunk: Chunk, call: Call, length: Length) -> Chunk:
        """Return `chunk` with the given answer for its text: as soon as there are as many tokens, and as if it had ended by itself."""
        made = call.arrivals[-1][1] if call.arrivals else 0
        text = self._answer or ""
        due = text if made >= length.decision and call.decision_tokens is None else ""
        if due:
            call.decision_tokens = made
        usage = None if chunk.usage is None else replace(chunk.usage, finish_reason="stop")
        # Before that a space, which is no part of a line: what is timed as the first token is when the first one came.
        return replace(chunk, text=due or (" " if chunk.text and call.decision_tokens is None else ""), usage=usage)

    def _generated(self, said: dict[str, Any], sent: int) -> Generated:
        found = super()._generated(said, sent)
        call = self._flights.get(said["meta_info"].get("id", ""))
        if call is not None:
            tokens = found.meta_info.completion_tokens or 0
            call.arrivals.append((time.time() * 1000, tokens))
            call.meta, call.text = said["meta_info"], found.text
            ended = call.finish == "stop" and not call.text.startswith("{")
            if self._answer is None and call.decision_tokens is None and (ended or _DECISION_END.search(call.text)):
                call.decision_tokens = tokens
        return found
