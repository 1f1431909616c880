"""What `aquiline engine serve` composes: the engine's process, warming with the product's grammar, and Redis' list of prefixes."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from dataclasses import dataclass
from pathlib import Path

import typer

from services.core import settings as core_settings
from services.core.clock import SystemClock
from services.core.redis import connect
from services.core.tokenizer import Tokenizer
from services.fusion.decide.answer import ANSWER_SCHEMA
from services.fusion.prompt.builder import fingerprint
from services.fusion.prompt.store import PrefixStore
from services.inference.engine import EngineError, TokenIds
from services.inference.launcher import warming
from services.inference.launcher.command import Launch
from services.inference.launcher.presets import LaunchError
from services.inference.launcher.process import EngineProcess, forget_ready, write_ready
from services.inference.sglang_client import SGLangEngine

_UP_TIMEOUT_S = 1_800.0
_MOST_PREFIXES = 10_000


@dataclass(frozen=True, slots=True)
class Serving:
    """One engine to be served: how it is started and what it is warmed for."""

    launch: Launch
    context: int
    at_once: int
    model_path: Path
    ready_file: Path | None
    rewarm_url: str | None
    """The address by which workers know this engine, whose prefixes are prefilled again; None for none."""


async def serve(serving: Serving) -> int:
    """Start the engine, warm it, report it ready, and stay until it ends or a signal comes; return the exit status.

    Raises LaunchError when the engine ends by itself or cannot be warmed. The process group is gone when this returns.
    """
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    process = await EngineProcess.start(serving.launch)
    ended = asyncio.create_task(process.ended())
    stopping = asyncio.create_task(told.wait())
    preparing = asyncio.create_task(_prepare(serving, process))
    try:
        await asyncio.wait({preparing, ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if preparing.done() and not stopping.done():
            await preparing
            write_ready(serving.ready_file, serving.launch.url)
            typer.echo(f"ready at {serving.launch.url}", err=True)
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


async def _prepare(serving: Serving, process: EngineProcess) -> None:
    await process.wait_until_up(_UP_TIMEOUT_S)
    typer.echo("the engine is up; warming every kind of request", err=True)
    engine = SGLangEngine(serving.launch.url, SystemClock())
    try:
        rows = await warming.warm(engine, context=serving.context, permits=serving.at_once, json_schema=ANSWER_SCHEMA)
        for row in rows:
            typer.echo(f"  {row.kind}: {row.first_ms:,.0f} ms, then {row.again_ms:,.0f} ms", err=True)
        if serving.rewarm_url is not None:
            capacity = (await engine.info()).kv_capacity_tokens or 0
            url = serving.rewarm_url

            async def source() -> list[TokenIds]:
                return await prefixes_of(url, serving.model_path)

            prefixes, computed = await warming.rewarm(engine, source, capacity_tokens=capacity)
            typer.echo(f"  {prefixes} prefixes that were in use: {computed:,} tokens prefilled", err=True)
    finally:
        await engine.close()


async def prefixes_of(url: str, model_path: Path) -> list[TokenIds]:
    """Return the prefixes that workers last used on the engine that they know as `url`, the latest first.

    They are told apart by tokenizer, chat template and prompt version, as the workers' settings have them; no Redis, no prefixes.
    """
    settings = core_settings.load()
    client = connect(settings.redis)
    if client is None:
        return []
    clock = SystemClock()
    tokenizer = Tokenizer.from_file(settings.engine.tokenizer_file or model_path / "tokenizer.json")
    store = PrefixStore(client, settings.redis, clock, fingerprint(tokenizer, settings.engine.chat_template))
    try:
        return await store.hottest(SGLangEngine(url, clock).name, _MOST_PREFIXES)
    finally:
        await store.close()
