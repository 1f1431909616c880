"""Any OpenAI-compatible server (Ollama, LM Studio, routers): chat completions, streamed, the prompt as text.

Such servers take no token ids and have no call to abort by: closing the connection is what they notice. Those that cut a long prompt
say so in their last event only, so an answer is held back until a prompt of its length is known to be read whole.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncGenerator
from typing import Annotated, Any, Final

import orjson
import structlog
from pydantic import Field

from services.core.clock import Clock
from services.inference.engine import Capabilities, Chunk, EngineError, EngineInfo, EngineRequest, Scores, TokenIds, Usage
from services.inference.http_client import Deadline
from services.inference.http_engine import TextEngine, dumps, listed_model, v1_prefix
from services.inference.reply import Counts, Name, Objects, Reply, Table, Text, parse
from services.inference.thoughts import Thoughts

_log = structlog.get_logger()

CAPABILITIES: Final = Capabilities(token_ids=False, prewarm=False, abort="by closing", grammar=True, logprobs=False, cached_tokens=True)

_OPTIONAL: Final = ("chat_template_kwargs", "seed")
"""Fields that an answer can do without."""
_SYSTEM: Final = "system message"
_NO_SYSTEM_ROLE: Final = re.compile(r"system\b.{0,40}\b(?:role|message|prompt)|roles must alternate", re.IGNORECASE)
"""How templates refuse a system message: "System role not supported" (Gemma), "Conversation roles must alternate" (Mistral)."""
_CONTEXT_STEP: Final = 512
"""Contexts are whole multiples of this many tokens: what read 4,090 tokens whole reads 4,096 whole."""
_ALIKE: Final = 0.98
"""With the model's own tokenizer, a server reads at least this share of our count; its chat template adds tokens."""
_ROUGHLY: Final = 0.8
"""With the shipped tokenizer, which is not the model's, this share: it cuts bars into fewer tokens than the models' own do."""


class _Delta(Reply):
    content: Text = ""
    reasoning_content: Text = ""
    reasoning: Text = ""


class _Choice(Reply):
    delta: Annotated[_Delta, Table] = Field(default_factory=_Delta)
    finish_reason: Name = None


class _ChatEvent(Reply):
    choices: Annotated[tuple[_Choice, ...], Objects] = ()
    usage: Annotated[Counts, Table] = Field(default_factory=Counts)


class OpenAIEngine(TextEngine):
    """One OpenAI-compatible server; its address may end in `/v1` or not."""

    kind = "openai"
    capabilities = CAPABILITIES

    def __init__(
        self,
        url: str,
        clock: Clock,
        *,
        model: str | None = None,
        api_key: str | None = None,
        connect_timeout_ms: int = 1_000,
        own_tokenizer: bool = False,
        no_think: str | None = None,
    ) -> None:
        """Prepare for the server at `url`; without `model` the first one that it lists is asked. Raise ValueError for a bad address.

        `own_tokenizer`: `EngineRequest.input_ids` are the model's own. `no_think` ends the user's message in every mode but `deep`.
        """
        super().__init__(url, clock, api_key=api_key, connect_timeout_ms=connect_timeout_ms)
        self._v1 = v1_prefix(self._http)
        self._model = model
        self._least = _ALIKE if own_tokenizer else _ROUGHLY
        self._no_think = no_think
        self._refused: frozenset[str] = frozenset()
        """Of `_OPTIONAL` and `_SYSTEM`, what the server has refused: strict ones take no field that they do not know."""
        self._read_whole = 0
        """The most prompt tokens that the server is known to have read whole, by our count, up to a whole step."""

    async def stream(self, request: EngineRequest) -> AsyncGenerator[Chunk]:
        """Yield the answer as it comes, the last chunk with `usage`; raise EngineError.

        Where the server leaves usage out, the prompt's tokens are those of `input_ids` and the output's the pieces that came.
        """
        deadline = Deadline(request.deadline_ms, self._clock)
        while True:
            sent_without = self._refused
            try:
                async with contextlib.aclosing(self._answer(request, deadline)) as chunks:
                    async for chunk in chunks:
                        yield chunk
            except EngineError as error:
                if not self._learn(error, sent_without):
                    raise
            else:
                return

    def _learn(self, error: EngineError, sent_without: frozenset[str]) -> bool:
        """Return whether a call that was sent without some parts may be sent again without what the server has just refused."""
        if error.reason != "engine_refused":
            return False
        refused = {name for name in _OPTIONAL if re.search(rf"\b{name}\b", error.detail)} or (
            {_SYSTEM} if _NO_SYSTEM_ROLE.search(error.detail) else set()
        )
        if refused <= sent_without:
            return False
        self._refused |= refused
        _log.warning("engine_refuses_a_field", engine=self.name, without=sorted(self._refused), detail=error.detail)
        return True

    async def score(self, request: EngineRequest, labels: TokenIds) -> Scores:
        """Raise EngineError: chat completions score no given tokens."""
        del request, labels
        raise EngineError("engine_refused", f"{self.name} gives no log-probabilities of given tokens")

    async def _answer(self, request: EngineRequest, deadline: Deadline) -> AsyncGenerator[Chunk]:
        model = self._model or (await self.info()).model
        sent = request.input_ids.size
        path = f"{self._v1}/chat/completions"
        body = dumps(self._body(request, model))
        thoughts = Thoughts(thinking=request.mode == "deep")
        held: list[str] | None = None if sent <= self._read_whole else []
        finish: str | None = None
        counts = Counts()
        pieces = 0
        headers = {"X-Request-Id": request.rid, **request.trace_headers}
        answering: EngineInfo | None = None
        async with contextlib.aclosing(self._events(path, body, deadline, headers)) as events:
            async for info, batch in events:
                for event in batch:
                    reply = parse(_ChatEvent, event, self._http.where)
                    if reply.usage.prompt_tokens is not None or reply.usage.completion_tokens is not None:
                        counts = reply.usage
                    for choice in reply.choices:
                        finish = choice.finish_reason or finish
                        delta = choice.delta
                        pieces += bool(delta.content)
                        text = thoughts.feed(delta.reasoning_content or delta.reasoning, delta.content)
                        if held is not None:
                            held.append(text)
                            text = ""
                        if text or answering is None:
                            yield Chunk(text, engine=None if answering else info)
                            answering = info
        if finish is None:
            raise EngineError("engine_broke", f"{self._http.where} ended the stream after {pieces} pieces without a finish reason")
        self._check(counts.prompt_tokens, sent)
        cached = counts.prompt_tokens_details.cached_tokens
        usage = Usage(
            prompt_tokens=sent if counts.prompt_tokens is None else counts.prompt_tokens,
            output_tokens=pieces if counts.completion_tokens is None else counts.completion_tokens,
            cached_tokens=cached,
            finish_reason=finish,
        )
        yield Chunk("".join(held or ()) + thoughts.finish(), cached, usage)

    def _check(self, read: int | None, sent: int) -> None:
        """Learn how long a prompt the server reads whole; raise EngineError, `prompt_cut`."""
        if read is None:
            return
        if read < self._least * sent:
            raise EngineError("prompt_cut", f"{self._http.where} read {read:,} of the prompt's {sent:,} tokens: raise its context length")
        upper = -(-read // _CONTEXT_STEP) * _CONTEXT_STEP
        self._read_whole = max(self._read_whole, sent * upper // max(1, read))

    def _lost(self) -> None:
        super()._lost()
        self._read_whole = 0

    async def _read_info(self) -> EngineInfo:
        return await listed_model(self._http, self._v1, self._model, self.name)

    def _body(self, request: EngineRequest, model: str) -> dict[str, Any]:
        system, user = request.text()
        thinking = request.mode == "deep"
        if not thinking and self._no_think is not None:
            user = f"{user}{self._no_think}"
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        if _SYSTEM in self._refused:
            messages = [{"role": "user", "content": f"{system}\n{user}"}]
        body: dict[str, Any] = {
            "model": model,
            "messages": messages,
            "max_tokens": request.sampling.max_new_tokens,
            "temperature": request.sampling.temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if request.sampling.temperature > 0:
            body["top_p"] = request.sampling.top_p
            if request.sampling.seed is not None and "seed" not in self._refused:
                body["seed"] = request.sampling.seed
        if "chat_template_kwargs" not in self._refused:
            body["chat_template_kwargs"] = {"enable_thinking": thinking}
        if request.sampling.json_schema is not None:
            schema = {"name": "answer", "strict": True, "schema": orjson.Fragment(request.sampling.json_schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body
