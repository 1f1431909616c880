"""What every engine behind HTTP shares: what answers at the address, streams of decoded events, and errors in the servers' own words.

What answers is asked again after every new connection, while the engine computes its first token: another server may have taken the
address meanwhile, and a signal has to name the one that answered.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Final

import orjson

from services.core.clock import Clock
from services.inference.engine import Capabilities, Chunk, EngineError, EngineInfo, EngineLoad, EngineRequest, Scores, TokenIds, Usage
from services.inference.http_client import Deadline, HttpClient, error_words, refusal
from services.inference.reply import loads
from services.inference.sse import DONE

_MODEL_CHARACTERS: Final = 256
"""As in the contracts."""
_LOST: Final = frozenset({"engine_unreachable", "engine_broke"})


class HttpEngine(ABC):
    """One server. Nothing is opened before the first call."""

    kind: ClassVar[str]
    capabilities: ClassVar[Capabilities]

    def __init__(
        self, url: str, clock: Clock, *, api_key: str | None = None, connect_timeout_ms: int = 1_000, keep_alive: bool = True
    ) -> None:
        """Prepare for the server at `url`; raise ValueError for a bad address."""
        self._http = HttpClient(url, api_key=api_key, connect_timeout_ms=connect_timeout_ms, keep_alive=keep_alive)
        self._clock = clock
        self._info: EngineInfo | None = None
        self._known_at = 0
        """The count of connections when `_info` was asked for."""

    @property
    def name(self) -> str:
        """Return `kind@host:port`."""
        return f"{self.kind}@{self._http.where}"[:64]

    async def info(self) -> EngineInfo:
        """Return what the server is, asked again after a lost connection; raise EngineError."""
        return self._info or await self._ask()

    async def load(self, affinity: str | None = None) -> EngineLoad | None:
        """Return None: the API does not say."""
        del affinity
        return None

    async def watch(self) -> None:  # noqa: B027 - one that is complete
        """Do nothing: the breaker around it watches."""

    async def close(self) -> None:
        """Close the connections; calls in flight raise EngineError."""
        await self._http.close()

    @abstractmethod
    def stream(self, request: EngineRequest) -> AsyncGenerator[Chunk]:
        """Yield the answer as it comes, the last chunk with `usage`; raise EngineError."""

    @abstractmethod
    async def warm(self, rid: str, affinity: str, input_ids: TokenIds) -> Usage:
        """Have the server prefill `input_ids`; raise EngineError."""

    @abstractmethod
    async def score(self, request: EngineRequest, labels: TokenIds) -> Scores:
        """Return how likely each of `labels` is right after the prompt; raise EngineError."""

    @abstractmethod
    async def _read_info(self) -> EngineInfo:
        """Ask the server what it is; raise EngineError."""

    async def _answering(self) -> EngineInfo:
        """Return what the server is, asked again when a connection has been opened since."""
        return self._info if self._info is not None and self._known_at == self._http.opened else await self._ask()

    async def _ask(self) -> EngineInfo:
        with self._forgetful():
            info = await self._read_info()
        # A path to weights can be longer than messages have room for, and its end tells models apart.
        info = replace(info, model=info.model[-_MODEL_CHARACTERS:] or "unknown")
        self._info, self._known_at = info, self._http.opened
        return info

    async def _events(
        self, path: str, body: bytes, deadline: Deadline, headers: Mapping[str, str]
    ) -> AsyncGenerator[tuple[EngineInfo, list[dict[str, Any]]]]:
        """Send `body`, and yield who answers with the events that came at once, decoded; raise EngineError.

        Events that hold nothing (`null`) are left out.
        """
        asking: asyncio.Task[EngineInfo] | None = None
        info: EngineInfo | None = None
        try:
            with self._forgetful():
                async with contextlib.aclosing(self._http.events(path, body, deadline, headers)) as events:
                    async for payloads in events:
                        if info is None and asking is None:
                            asking = asyncio.create_task(self._answering(), name=f"info of {self.name}")
                        batch = [event for payload in payloads if payload != DONE and (event := self._event(payload)) is not None]
                        if not batch:
                            continue
                        if info is None:
                            assert asking is not None  # noqa: S101 - made above
                            info = await asking
                        yield info, batch
        finally:
            if asking is not None and not asking.done():
                asking.cancel()

    async def _whole(self, path: str, body: bytes, timeout_s: float) -> dict[str, Any]:
        """Return the JSON object of an answer that is not streamed; raise EngineError."""
        if timeout_s <= 0:
            raise EngineError("engine_timeout", f"the deadline had passed {-timeout_s * 1000:.0f} ms before {self._http.where} was asked")
        with self._forgetful():
            event = self._event(await self._http.post(path, body, timeout_s))
        if event is None:
            raise EngineError("engine_broke", f"{self._http.where} answered null; expected an object")
        return event

    def _event(self, payload: bytes) -> dict[str, Any] | None:
        event = loads(payload, self._http.where)
        if event is None:
            return None
        if not isinstance(event, dict):
            raise EngineError("engine_broke", f"{self._http.where} sent {payload[:80]!r}; expected an object")
        error = event.get("error")
        if error is not None:
            code = error.get("code") if isinstance(error, dict) else None
            raise refusal(code if isinstance(code, int) else 500, error_words(payload), self._http.where)
        return event

    def _fits(self, tokens: int) -> None:
        """Raise EngineError, `prompt_cut`, when the server's context is known to be shorter than a prompt."""
        context = self._info.context_tokens if self._info is not None else None
        if context is not None and tokens > context:
            raise EngineError("prompt_cut", f"{self._http.where} reads {context:,} tokens at most, and the prompt has {tokens:,}")

    def _whole_prompt(self, read: int | None, sent: int) -> None:
        """Raise EngineError, `prompt_cut`, when the server says that it read fewer tokens than it was sent."""
        if read is not None and read < sent:
            raise EngineError("prompt_cut", f"{self._http.where} read {read:,} of the prompt's {sent:,} tokens")

    def _lost(self) -> None:
        """Forget what answered: another server may from now on, with another model and empty caches."""
        self._info = None

    @contextlib.contextmanager
    def _forgetful(self) -> Iterator[None]:
        try:
            yield
        except EngineError as error:
            if error.reason in _LOST:
                self._lost()
            raise


class TextEngine(HttpEngine):
    """A server that takes chat messages: no ids can be sent ahead."""

    async def warm(self, rid: str, affinity: str, input_ids: TokenIds) -> Usage:
        """Do nothing."""
        del rid, affinity
        return Usage(prompt_tokens=input_ids.size, output_tokens=0)


def v1_prefix(http: HttpClient) -> str:
    """Return what stands before the paths of OpenAI's APIs: the address may end in `/v1` or not."""
    return "" if http.path.endswith("/v1") else "/v1"


async def listed_model(http: HttpClient, v1: str, model: str | None, name: str) -> EngineInfo:
    """Return the model that a server lists, `model` or its first, with its context where it says so (vLLM does); raise EngineError."""
    reply = await http.get(f"{v1}/models")
    listed = reply.get("data") if isinstance(reply, dict) else None
    models = {str(one["id"]): one for one in listed or [] if isinstance(one, dict) and "id" in one}
    chosen = model or next(iter(models), None)
    if chosen is None:
        raise EngineError("engine_refused", f"{http.where} lists no model; name one in engine.model")
    if models and chosen not in models:
        raise EngineError("engine_refused", f"{http.where} has no model {chosen!r}, but {', '.join(list(models)[:5])}")
    length = models.get(chosen, {}).get("max_model_len")
    return EngineInfo(name, "llm", chosen, context_tokens=length if isinstance(length, int) else None)


def dumps(body: Mapping[str, Any]) -> bytes:
    """Return a request's JSON; arrays of ids, which must be contiguous, take 0.4 ms for 32K."""
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
