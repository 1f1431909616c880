"""An engine behind its breaker: calls to an address that keeps failing are refused at once, and counted.

What says nothing of the address, such as a call that its caller gave up or a deadline too near to be met, leaves the breaker be.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Iterator

import structlog

from services.core import metrics
from services.core.breaker import Breaker, Outcome
from services.core.clock import Clock
from services.inference.engine import Chunk, Engine, EngineError, EngineInfo, EngineLoad, EngineRequest, TokenIds, Usage

log = structlog.get_logger()


class _Call:
    """How an admitted call goes: until it has ended, its outcome is `unknown`."""

    def __init__(self) -> None:
        self.outcome: Outcome = "unknown"
        self.heard = False


class GuardedEngine:
    """`engine`, left alone while `breaker` says so.

    A timeout counts as a failure only when the engine said nothing at all for `patience_ms`: a call that came late to its turn has
    a deadline that no engine could keep.
    """

    def __init__(self, engine: Engine, breaker: Breaker, clock: Clock, *, patience_ms: int) -> None:
        """Wrap `engine`; the breaker's time is `clock`'s."""
        self._engine = engine
        self._breaker = breaker
        self._clock = clock
        self._patience_ms = patience_ms

    @property
    def name(self) -> str:
        """Return the engine's name."""
        return self._engine.name

    @property
    def accepts_ids(self) -> bool:
        """Return whether the engine takes ids."""
        return self._engine.accepts_ids

    @property
    def available(self) -> bool:
        """Return whether a call would be let through now."""
        return self._breaker.would_admit(self._clock.now_ms())

    async def info(self) -> EngineInfo:
        """Return what the engine is; raise EngineError."""
        return await self._engine.info()

    async def stream(self, request: EngineRequest) -> AsyncGenerator[Chunk]:
        """Yield the engine's answer; raise EngineError, `engine_open` while the address is left alone."""
        with self._admitted() as call:
            chunks = self._engine.stream(request)
            try:
                async for chunk in chunks:
                    call.heard = True
                    if chunk.usage is not None:
                        call.outcome = "answered"
                    yield chunk
            finally:
                await chunks.aclose()

    async def warm(self, rid: str, affinity: str, input_ids: TokenIds) -> Usage:
        """Have the engine prefill `input_ids`; raise EngineError, `engine_open` while the address is left alone."""
        with self._admitted() as call:
            usage = await self._engine.warm(rid, affinity, input_ids)
            call.outcome = "answered"
            return usage

    async def load(self, affinity: str | None = None) -> EngineLoad | None:
        """Return how busy the engine is; raise EngineError, `engine_open` while the address is left alone."""
        if not self.available:
            raise self._left_alone()
        return await self._engine.load(affinity)

    async def close(self) -> None:
        """Close the engine's connections."""
        await self._engine.close()

    def _left_alone(self) -> EngineError:
        return EngineError("engine_open", f"{self.name} keeps failing and is left alone for a moment")

    @contextlib.contextmanager
    def _admitted(self) -> Iterator[_Call]:
        asked_ms = self._clock.now_ms()
        admission = self._breaker.admit(asked_ms)
        if admission is None:
            metrics.ENGINE_CALLS.labels(self.name, "engine_open").inc()
            raise self._left_alone()
        call = _Call()
        end = "abandoned"
        try:
            yield call
            end = "answered"
        except EngineError as error:
            end = error.reason
            call.outcome = self._judge(error, call, self._clock.now_ms() - asked_ms)
            raise
        finally:
            now_ms = self._clock.now_ms()
            before = self._breaker.state(now_ms)
            self._breaker.settle(admission, call.outcome, now_ms)
            after = self._breaker.state(now_ms)
            metrics.ENGINE_CALLS.labels(self.name, "answered" if call.outcome == "answered" else end).inc()
            metrics.ENGINE_LEFT_ALONE.labels(self.name).set(after != "closed")
            if before != after:
                log.warning("engine breaker", engine=self.name, before=before, after=after)

    def _judge(self, error: EngineError, call: _Call, waited_ms: int) -> Outcome:
        if error.reason == "engine_refused":
            return "answered"  # it lives, and does not like what was sent
        if error.reason == "engine_timeout" and (call.heard or waited_ms < self._patience_ms):
            return "unknown"
        return "failed"
