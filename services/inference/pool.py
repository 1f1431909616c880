"""Several engines as one: each symbol has its engine, so that its prefix is cached in one place and nowhere else.

Rendezvous hashing (Thaler and Ravishankar, 1996): every engine is weighed for a symbol and the heaviest serves it; while that
one's breaker is open, the next heaviest does, and no other symbol moves.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Final

import structlog

from services.core.clock import Clock
from services.inference.engine import Capabilities, Chunk, EngineError, EngineInfo, EngineLoad, EngineRequest, Scores, TokenIds, Usage
from services.inference.with_breaker import EngineWithBreaker

_log = structlog.get_logger()

_NEXT: Final = frozenset({"engine_unreachable", "engine_broke", "engine_open", "engine_overloaded"})
"""What another engine of the pool may do better."""


def ranked(affinity: str, addresses: Sequence[str]) -> list[int]:
    """Return the positions of `addresses`, the one that serves `affinity` first."""

    def weight(position: int) -> bytes:
        return hashlib.blake2b(f"{addresses[position]}\0{affinity}".encode(), digest_size=8).digest()

    return sorted(range(len(addresses)), key=weight, reverse=True)


class EnginePool:
    """Engines that serve the same model, one an address."""

    def __init__(self, engines: Sequence[EngineWithBreaker], addresses: Sequence[str], clock: Clock) -> None:
        """Take the engines and their addresses, in the same order; the addresses' names decide who serves what.

        `clock` is the one that deadlines are on.
        """
        self._clock = clock
        self._engines = engines
        self._addresses = addresses

    @property
    def name(self) -> str:
        """Return `pool of n`, with the first engine's name."""
        return f"pool of {len(self._engines)}, {self._engines[0].name}"[:64]

    @property
    def capabilities(self) -> Capabilities:
        """Return what each of the engines can do."""
        return self._engines[0].capabilities

    async def info(self) -> EngineInfo:
        """Return what those engines are that answer: the least context, the sum of their KV capacities.

        Raises EngineError when none answers, or when they serve different models: a symbol's answers would change with its address.
        """
        asked = await asyncio.gather(*(engine.info() for engine in self._engines), return_exceptions=True)
        for failure in asked:
            if isinstance(failure, BaseException) and not isinstance(failure, EngineError):
                raise failure
        infos = [one for one in asked if isinstance(one, EngineInfo)]
        if not infos:
            raise next(one for one in asked if isinstance(one, EngineError))
        if len({(one.model, one.source) for one in infos}) > 1:
            served = ", ".join(f"{one.name}: {one.model}" for one in infos)
            raise EngineError("engine_refused", f"engine.urls serve different models ({served}); let all serve the same")
        contexts = [one.context_tokens for one in infos if one.context_tokens is not None]
        capacities = [one.kv_capacity_tokens for one in infos if one.kv_capacity_tokens is not None]
        return EngineInfo(
            name=self.name,
            source=infos[0].source,
            model=infos[0].model,
            context_tokens=min(contexts, default=None),
            kv_capacity_tokens=sum(capacities) if len(capacities) == len(infos) else None,
            raw={one.name: one.raw for one in infos},
        )

    async def stream(self, request: EngineRequest) -> AsyncGenerator[Chunk]:
        """Yield the answer of the symbol's engine, of the next one while nothing has come and time is left; raise EngineError.

        `engine_open` is raised while all breakers are open.
        """
        order = self._order(request.affinity)
        for engine, more in zip(order, [*order[1:], None], strict=True):
            received = False
            try:
                async with aclosing(engine.stream(request)) as chunks:
                    async for chunk in chunks:
                        received = True
                        yield chunk
            except EngineError as error:
                if received or more is None or error.reason not in _NEXT or self._clock.now_ms() >= request.deadline_ms:
                    raise
                _log.warning("engine_passed_over", engine=engine.name, next=more.name, reason=error.reason, detail=error.detail)
            else:
                return

    async def warm(self, rid: str, affinity: str, input_ids: TokenIds) -> Usage:
        """Have the symbol's engine prefill `input_ids`; raise EngineError."""
        return await self._serving(affinity).warm(rid, affinity, input_ids)

    async def score(self, request: EngineRequest, labels: TokenIds) -> Scores:
        """Return how likely each of `labels` is, says the symbol's engine; raise EngineError."""
        order = self._order(request.affinity)
        for engine in order[:-1]:
            try:
                return await engine.score(request, labels)
            except EngineError as error:
                if error.reason not in _NEXT or self._clock.now_ms() >= request.deadline_ms:
                    raise
                _log.warning("engine_passed_over", engine=engine.name, reason=error.reason, detail=error.detail)
        return await order[-1].score(request, labels)

    async def load(self, affinity: str | None = None) -> EngineLoad | None:
        """Return how busy the symbol's engine is, or all with a closed breaker together; raise EngineError."""
        if affinity is not None:
            return await self._serving(affinity).load(affinity)
        loads = await asyncio.gather(*(engine.load() for engine in self._engines if engine.available))
        known = [load for load in loads if load is not None]
        if not known:
            return None
        return EngineLoad(
            running=sum(load.running for load in known),
            waiting=sum(load.waiting for load in known),
            waiting_uncached_tokens=sum(load.waiting_uncached_tokens for load in known),
        )

    async def watch(self) -> None:
        """Watch over every address; cancel to end."""
        await asyncio.gather(*(engine.watch() for engine in self._engines))

    async def close(self) -> None:
        """Close all connections."""
        await asyncio.gather(*(engine.close() for engine in self._engines))

    def _serving(self, affinity: str) -> EngineWithBreaker:
        return self._order(affinity)[0]

    def _order(self, affinity: str) -> list[EngineWithBreaker]:
        """Return the engines that may be asked, the symbol's own first; its own alone while all breakers are open."""
        order = [self._engines[position] for position in ranked(affinity, self._addresses)]
        return [engine for engine in order if engine.available] or order[:1]
