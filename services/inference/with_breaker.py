"""An engine with a circuit breaker: calls to an address that keeps failing are refused at once, and counted.

A call that its caller cancelled, or whose deadline was too near to be met, does not count.
An idle address is probed with a request for a few tokens; a decision cancels the probe.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

import structlog
from prometheus_client import Counter

from services.core import metrics
from services.core.breaker import Breaker, CallResult
from services.core.clock import Clock
from services.inference.engine import (
    Capabilities,
    Chunk,
    Engine,
    EngineError,
    EngineInfo,
    EngineLoad,
    EngineRequest,
    Scores,
    TokenIds,
    Usage,
)
from services.inference.idleness import Idleness, probe

log = structlog.get_logger()


class _Call:
    """An admitted call; its outcome is `unknown` until it has ended."""

    def __init__(self) -> None:
        self.outcome: CallResult = "unknown"
        self.received = False


class EngineWithBreaker:
    """`engine`, called only while its `breaker` admits calls.

    A timeout counts as a failure only when the engine sent nothing at all for `patience_ms`: a call that came late to its turn has
    a deadline that no engine could keep.
    """

    def __init__(
        self, engine: Engine, breaker: Breaker, clock: Clock, *, patience_ms: int, probe_idle_ms: int, probe_timeout_ms: int
    ) -> None:
        """Wrap `engine`; the breaker runs on `clock`. `watch` probes it after `probe_idle_ms` without a call."""
        self._engine = engine
        self._breaker = breaker
        self._clock = clock
        self._patience_ms = patience_ms
        self._probe_timeout_ms = probe_timeout_ms
        now_ms = clock.now_ms()
        self._idleness = Idleness(probe_idle_ms, answered_ms=now_ms, used_ms=now_ms)
        self._probing: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """Return the engine's name."""
        return self._engine.name

    @property
    def capabilities(self) -> Capabilities:
        """Return what the engine can do."""
        return self._engine.capabilities

    @property
    def available(self) -> bool:
        """Return whether a call would be admitted now."""
        return self._breaker.would_admit(self._clock.now_ms())

    async def info(self) -> EngineInfo:
        """Return what the engine is; raise EngineError."""
        return await self._engine.info()

    async def stream(self, request: EngineRequest) -> AsyncGenerator[Chunk]:
        """Yield the engine's answer; raise EngineError, `engine_open` while the breaker is open."""
        await self._end_probe()
        async with aclosing(self._chunks(request, metrics.ENGINE_CALLS)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def warm(self, rid: str, affinity: str, input_ids: TokenIds) -> Usage:
        """Have the engine prefill `input_ids`; raise EngineError, `engine_open` while the breaker is open."""
        await self._end_probe()
        with self._admitted(metrics.ENGINE_CALLS) as call:
            usage = await self._engine.warm(rid, affinity, input_ids)
            self._received(call)
            call.outcome = "answered"
            return usage

    async def score(self, request: EngineRequest, labels: TokenIds) -> Scores:
        """Return how likely each of `labels` is; raise EngineError, `engine_open` while the breaker is open."""
        await self._end_probe()
        with self._admitted(metrics.ENGINE_CALLS) as call:
            scores = await self._engine.score(request, labels)
            self._received(call)
            call.outcome = "answered"
            return scores

    async def load(self, affinity: str | None = None) -> EngineLoad | None:
        """Return how busy the engine is; raise EngineError, `engine_open` while the breaker is open."""
        if not self.available:
            raise self._open_error()
        return await self._engine.load(affinity)

    async def watch(self) -> None:
        """Probe the engine after each `probe_idle_ms` without a call, and export for how long it has sent nothing; cancel to end."""
        idleness, clock = self._idleness, self._clock
        idleness.answer(clock.now_ms())
        silent = metrics.ENGINE_SILENT_SECONDS.labels(self.name)
        silent.set_function(lambda: idleness.silent_ms(clock.now_ms()) / 1000)
        metrics.ENGINE_LEFT_ALONE.labels(self.name).set(self._breaker.state(clock.now_ms()) != "closed")
        try:
            while True:
                await clock.sleep_until(clock.now_ms() + self._due_in_ms())
                if not self._due_in_ms():
                    await self._probe()
        finally:
            metrics.ENGINE_SILENT_SECONDS.remove(self.name)

    async def close(self) -> None:
        """Close the engine's connections."""
        await self._engine.close()

    def _due_in_ms(self) -> int:
        # An open breaker admits no probe either; check again when it may be half open.
        return self._idleness.due_in_ms(self._clock.now_ms()) if self.available else self._patience_ms

    async def _probe(self) -> None:
        self._probing = asyncio.create_task(self._ask_for_tokens(), name=f"probe {self.name}")
        try:
            await asyncio.wait([self._probing])
        finally:
            await self._end_probe()

    async def _ask_for_tokens(self) -> None:
        asked_ms = self._clock.now_ms()
        try:
            async with aclosing(self._chunks(probe(asked_ms + self._probe_timeout_ms), metrics.ENGINE_PROBES)) as chunks:
                async for _ in chunks:
                    pass
        except EngineError as error:
            log.warning("engine_probe_failed", engine=self.name, reason=error.reason, detail=error.detail)
        metrics.ENGINE_PROBE_SECONDS.labels(self.name).set((self._clock.now_ms() - asked_ms) / 1000)

    async def _end_probe(self) -> None:
        """Cancel the probe: a call must find neither the engine nor the breaker's trial call taken by it."""
        probing = self._probing
        if probing is None or probing.done():
            return
        if not probing.cancelling():
            probing.cancel()
        await asyncio.wait([probing])

    async def _chunks(self, request: EngineRequest, counter: Counter) -> AsyncGenerator[Chunk]:
        with self._admitted(counter) as call:
            async with aclosing(self._engine.stream(request)) as chunks:
                async for chunk in chunks:
                    self._received(call)
                    if chunk.usage is not None:
                        call.outcome = "answered"
                    yield chunk

    def _received(self, call: _Call) -> None:
        call.received = True
        self._idleness.answer(self._clock.now_ms())

    def _open_error(self) -> EngineError:
        return EngineError("engine_open", f"{self.name} failed several times in a row, so its breaker is open; it is tried again shortly")

    @contextlib.contextmanager
    def _admitted(self, counter: Counter) -> Iterator[_Call]:
        asked_ms = self._clock.now_ms()
        admission = self._breaker.admit(asked_ms)
        if admission is None:
            counter.labels(self.name, "engine_open").inc()
            raise self._open_error()
        call = _Call()
        end: str | None = None
        self._idleness.begin(asked_ms)
        try:
            yield call
        except EngineError as error:
            end = error.reason
            call.outcome = self._judge(error, call, self._clock.now_ms() - asked_ms)
            raise
        finally:
            now_ms = self._clock.now_ms()
            self._idleness.end(now_ms)
            before = self._breaker.state(now_ms)
            self._breaker.settle(admission, call.outcome, now_ms)
            after = self._breaker.state(now_ms)
            counter.labels(self.name, end or ("answered" if call.outcome == "answered" else "abandoned")).inc()
            metrics.ENGINE_LEFT_ALONE.labels(self.name).set(after != "closed")
            if before != after:
                log.warning("engine_breaker_changed", engine=self.name, before=before, after=after)

    def _judge(self, error: EngineError, call: _Call, waited_ms: int) -> CallResult:
        if error.reason in {"engine_refused", "prompt_cut"}:
            return "answered"  # the server works, and refuses this request
        if error.reason == "engine_timeout" and (call.received or waited_ms < self._patience_ms):
            return "unknown"
        return "failed"
