"""The local engine for tests: one server a test module, with the real model."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path

import pytest

from services.core.tokenizer import Tokenizer
from services.inference.llamacpp_client import LlamaCppEngine
from services.inference.local.process import LocalEngine
from services.inference.local.weights import LocalEngineError, Weights, fetch

from .conftest import CLOCK


@cache
def weights() -> Weights:
    """Return the weights; skip the test where they cannot be had, and fail it with CI=true."""
    try:
        return fetch(print)
    except LocalEngineError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(Path(weights().tokenizer))


@contextlib.asynccontextmanager
async def running(*, symbols: int = 2, context_tokens: int = 2_048) -> AsyncIterator[LocalEngine]:
    """Yield a running server."""
    server = LocalEngine(weights(), symbols=symbols, context_tokens=context_tokens)
    await server.start()
    try:
        yield server
    finally:
        await server.kill()


@contextlib.asynccontextmanager
async def asking(server: LocalEngine) -> AsyncIterator[LlamaCppEngine]:
    """Yield a client for the server."""
    engine = LlamaCppEngine(server.url, CLOCK)
    try:
        yield engine
    finally:
        await engine.close()
