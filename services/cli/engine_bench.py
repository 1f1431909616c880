"""`aquiline engine bench`: measure a running engine of any kind, as a table, a plot and JSON; or hide a fact and ask for it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated
from uuid import UUID

import numpy as np
import typer
from pydantic import SecretStr
from rich.console import Console

from services.core.clock import SystemClock
from services.core.fusion_settings import FusionSettings
from services.core.settings import EngineSettings, SettingsError
from services.fusion.decide.answer import sampling
from services.fusion.prompt.blocks import Encoder
from services.fusion.prompt.chat import TEMPLATES
from services.fusion.service import connect_engine, load_tokenizer
from services.inference.bench import Bench, measure, plot, table
from services.inference.engine import EngineError, TokenIds
from services.inference.needle import Needles, search
from services.inference.needle import table as needles_table


def bench(
    *,
    url: Annotated[str, typer.Option(help="The engine's address; nothing else should be using it.")],
    kind: Annotated[str, typer.Option(help="Kind of engine, as in engine.kind: sglang, vllm, llamacpp, openai, …")] = "sglang",
    model: Annotated[str | None, typer.Option(help="The model's name, where the server has several.")] = None,
    tokenizer_file: Annotated[Path | None, typer.Option(help="The model's tokenizer.json; the simulator's when absent.")] = None,
    api_key: Annotated[str | None, typer.Option(envvar="AQUILINE_ENGINE__API_KEY", help="Bearer token.", show_envvar=True)] = None,
    length: Annotated[int, typer.Option(min=256, help="Length of prompts, in tokens.")] = 4_096,
    at_once: Annotated[str, typer.Option(help="Decisions at once.")] = "1,3,8",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of calls for each measurement.")] = 5,
    needle: Annotated[bool, typer.Option("--needle", help="Hide a fact in prompts of --length tokens instead, and ask for it.")] = False,
    chat_template: Annotated[
        str, typer.Option(help="Chat template around the question of --needle, as in engine.chat_template.")
    ] = "minicpm4",
    out: Annotated[Path | None, typer.Option(help="Folder for bench.json and bench.png, or needle.json.")] = None,
) -> None:
    """Measure a running engine: first token cold and cached, decoding step, one-token action, and decisions at once.

    With --needle, ask --rounds times for a fact at 10, 50 and 90 % of a prompt: found or not, and the time of a cold prompt.
    """
    try:
        counts = [int(part) for part in at_once.split(",")]
    except ValueError:
        raise typer.BadParameter(f"--at-once {at_once!r} must be whole numbers with commas between them, such as 1,3,8") from None
    try:
        values = {"kind": kind, "urls": [url], "model": model, "tokenizer_file": tokenizer_file, "chat_template": chat_template}
        settings = EngineSettings.model_validate({**values, "api_key": None if api_key is None else SecretStr(api_key)})
        if needle:
            Console().print(needles_table(asyncio.run(_searched(settings, length, rounds, out))))
            return
        made = asyncio.run(_measured(settings, length, counts, rounds))
    except (EngineError, SettingsError, ValueError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    Console().print(table(made))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "bench.json").write_bytes(made.json())
        if not plot(made, out / "bench.png"):
            typer.echo("no plot: matplotlib is not installed", err=True)


async def _measured(settings: EngineSettings, length: int, at_once: list[int], rounds: int) -> Bench:
    tokenizer = load_tokenizer(settings)
    engine = connect_engine(settings, SystemClock())
    try:
        return await measure(
            engine,
            tokenizer,
            length=length,
            at_once=at_once,
            rounds=rounds,
            # As the worker asks this kind of engine.
            decision=sampling(FusionSettings(answer_form="line" if engine.capabilities.regex else "json"), "fast", UUID(int=0)),
            say=lambda line: typer.echo(line, err=True),
        )
    finally:
        await engine.close()


async def _searched(settings: EngineSettings, length: int, rounds: int, out: Path | None) -> Needles:
    template = TEMPLATES[settings.chat_template]
    encoder = Encoder(load_tokenizer(settings), template)

    def encode(system: str, user: str) -> TokenIds:
        return np.concatenate(encoder.encode_all((*template.head, system, *template.middle, user, *template.tail("fast"))))

    def keep(made: Needles) -> None:
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            (out / "needle.json").write_bytes(made.json())

    engine = connect_engine(settings, SystemClock())
    try:
        return await search(engine, encode, length=length, rounds=rounds, say=lambda line: typer.echo(line, err=True), keep=keep)
    finally:
        await engine.close()
