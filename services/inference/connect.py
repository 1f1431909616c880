"""From settings to an engine: the right client, a breaker for each address, several addresses as one.

Only the client that is used is imported: a worker's start takes that much less.
"""

from __future__ import annotations

from services.core.breaker import Breaker
from services.core.clock import Clock
from services.core.settings import EngineSettings
from services.inference.engine import Engine
from services.inference.pool import EnginePool
from services.inference.rules import RulesEngine
from services.inference.with_breaker import EngineWithBreaker


def connect(settings: EngineSettings, clock: Clock) -> Engine:
    """Return the engine that `settings` describe; nothing is opened before its first call. Raise ValueError for a bad address.

    `clock` is the one that the deadlines of requests are on.
    """
    if settings.kind == "rules":
        return RulesEngine(clock)
    engines = [_engine_at(settings, url, clock) for url in settings.urls]
    return engines[0] if len(engines) == 1 else EnginePool(engines, settings.urls, clock)


def _engine_at(settings: EngineSettings, url: str, clock: Clock) -> EngineWithBreaker:
    api_key = settings.api_key.get_secret_value() if settings.api_key is not None else None
    timeout_ms = settings.connect_timeout_ms
    client: Engine
    if settings.kind == "llamacpp":
        from services.inference.llamacpp_client import LlamaCppEngine  # noqa: PLC0415 - see above

        client = LlamaCppEngine(url, clock, api_key=api_key, connect_timeout_ms=timeout_ms)
    elif settings.kind == "vllm":
        from services.inference.vllm_client import VllmEngine  # noqa: PLC0415

        client = VllmEngine(url, clock, model=settings.model, api_key=api_key, connect_timeout_ms=timeout_ms)
    elif settings.kind == "openai":
        from services.inference.openai_client import OpenAIEngine  # noqa: PLC0415

        client = OpenAIEngine(
            url,
            clock,
            model=settings.model,
            api_key=api_key,
            connect_timeout_ms=timeout_ms,
            own_tokenizer=settings.tokenizer_file is not None,
            no_think=settings.no_think,
        )
    else:
        from services.inference.sglang_client import SGLangEngine  # noqa: PLC0415

        client = SGLangEngine(url, clock, api_key=api_key, connect_timeout_ms=timeout_ms, scores=settings.scores)
    return EngineWithBreaker(
        client,
        Breaker(settings.breaker_failures, settings.breaker_open_ms),
        clock,
        patience_ms=timeout_ms,
        probe_idle_ms=settings.probe_idle_ms,
        probe_timeout_ms=settings.probe_timeout_ms,
    )
