"""Runs one engine for as long as it lasts: start the process, warm every kind of request, report it ready, stop it as a whole."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from services.core.clock import SystemClock
from services.inference.engine import EngineError
from services.inference.launcher import warming
from services.inference.launcher.command import Launch
from services.inference.launcher.presets import LaunchError
from services.inference.launcher.process import EngineProcess, forget_ready, write_ready
from services.inference.sglang_client import SGLangEngine

_UP_TIMEOUT_S = 1_800.0


@dataclass(frozen=True, slots=True)
class Serving:
    """One engine to be served: how it is started and what it is warmed for."""

    launch: Launch
    context: int
    at_once: int
    ready_file: Path | None
    regex: str
    """The answer's grammar, which is compiled while warming."""
    prefixes: warming.PrefixSource | None
    """Returns the prefixes that are prefilled again, hottest first; None for none."""


async def serve(serving: Serving, say: Callable[[str], None]) -> int:
    """Start the engine, warm it, report it ready, and stay until it ends or a signal comes; return the exit status.

    Raises LaunchError when the engine ends by itself or cannot be warmed. The process group is gone when this returns.
    """
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    process = await EngineProcess.start(serving.launch)
    ended = asyncio.create_task(process.ended())
    stopping = asyncio.create_task(told.wait())
    preparing = asyncio.create_task(_prepare(serving, process, say))
    try:
        await asyncio.wait({preparing, ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if preparing.done() and not stopping.done():
            await preparing
            write_ready(serving.ready_file, serving.launch.url)
            say(f"ready at {serving.launch.url}")
            await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if stopping.done():
            return 0
        raise LaunchError(f"the engine ended with status {ended.result()}: {process.reason()}")
    except EngineError as error:
        raise LaunchError(f"the engine came up, but a warming request failed: {error}; {process.reason()}") from error
    finally:
        forget_ready(serving.ready_file)
        preparing.cancel()
        stopping.cancel()
        with contextlib.suppress(asyncio.CancelledError, LaunchError, EngineError):
            await preparing
        await process.stop()
        with contextlib.suppress(asyncio.CancelledError):
            await ended


async def _prepare(serving: Serving, process: EngineProcess, say: Callable[[str], None]) -> None:
    await process.wait_until_up(_UP_TIMEOUT_S)
    say("the engine is up; warming every kind of request")
    engine = SGLangEngine(serving.launch.url, SystemClock())
    try:
        rows = await warming.warm(engine, context=serving.context, permits=serving.at_once, regex=serving.regex)
        for row in rows:
            say(f"  {row.kind}: {row.first_ms:,.0f} ms, then {row.again_ms:,.0f} ms")
        if serving.prefixes is not None:
            capacity = (await engine.info()).kv_capacity_tokens or 0
            prefixes, computed = await warming.rewarm(engine, serving.prefixes, capacity_tokens=capacity)
            say(f"  {prefixes} prefixes that were in use: {computed:,} tokens prefilled")
    finally:
        await engine.close()
