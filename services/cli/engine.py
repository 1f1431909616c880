"""`aquiline engine`: start the engine with a preset, tune it, measure it for the simulator, convert weights, or simulate it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from services.cli import engine_serve
from services.inference.launcher import checks, command, folders, presets
from services.inference.launcher.card import card_bytes
from services.inference.simulator.__main__ import main as simulator

app = typer.Typer(name="engine", help="The engine: launch, tune or simulate it.", no_args_is_help=True)

_MODEL = Path("models/MiniCPM4.1-8B")
_DRAFT = Path("models/MiniCPM4.1-8B-Eagle3/MiniCPM4_1-8B-Eagle3-bf16")
_GIB = 1024**3


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": False})
def serve(
    ctx: typer.Context,
    *,
    preset: Annotated[str, typer.Option(help="A preset's name (deploy/engine/), or the path of a TOML file.")],
    model_path: Annotated[Path, typer.Option(help="Folder of the target's weights.")] = _MODEL,
    draft_path: Annotated[Path, typer.Option(help="Folder of the EAGLE3 draft's weights.")] = _DRAFT,
    speculation: Annotated[bool, typer.Option(help="Serve with the EAGLE3 draft, or without.")] = True,
    context: Annotated[int | None, typer.Option(min=1_024, help="Longest prompt with its answer, in tokens; the preset's.")] = None,
    permits: Annotated[int, typer.Option(min=1, help="Calls of that length that must fit in the KV cache at once.")] = 3,
    host: Annotated[str, typer.Option(help="Address to listen on; loopback unless told otherwise.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port to listen on.")] = 30_000,
    ready_file: Annotated[Path | None, typer.Option(help="Created once the engine is warm, removed when it ends.")] = None,
    rewarm: Annotated[bool, typer.Option(help="Prefill the prefixes that Redis lists for this engine.")] = True,
    rewarm_url: Annotated[str | None, typer.Option(help="The address by which workers know this engine, where it is another.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the command and what would be refused; start nothing.")] = False,
) -> None:
    """Start stock SGLang with MiniCPM4.1 and EAGLE3, warm it, and stay with it.

    Arguments after `--` reach SGLang as they are.
    """
    try:
        chosen = presets.load(preset)
    except presets.LaunchError as error:
        _fail(str(error))
    tokens = context or chosen.engine.context_tokens
    found: list[str] = []
    target = draft = None
    try:
        target = folders.read(model_path, what="model")
    except presets.LaunchError as error:
        found.append(str(error))
    if speculation:
        try:
            draft = folders.read(draft_path, what="draft")
        except presets.LaunchError as error:
            found.append(str(error))
    launch = command.launch(
        chosen,
        model_path=model_path,
        draft_path=draft_path if speculation else None,
        target=target,
        context=tokens,
        host=host,
        port=port,
        extra=ctx.args,
    )
    if target is not None and (draft is not None or not speculation):
        card = card_bytes() or int(chosen.card_gib * _GIB)
        found += checks.findings(chosen, target, draft, card_bytes=card, context=tokens, permits=permits, extra=ctx.args)
        typer.echo(checks.memory(chosen, target, draft, card_bytes=card, context=tokens, permits=permits).sentence(), err=True)
    for sentence in found:
        typer.echo(f"refused: {sentence}", err=True)
    if dry_run:
        typer.echo(command.shell(launch))
        return
    if found:
        raise typer.Exit(2)
    serving = engine_serve.Serving(
        launch=launch,
        context=tokens,
        at_once=min(permits, chosen.engine.max_running_requests),
        model_path=model_path,
        ready_file=ready_file,
        rewarm_url=(rewarm_url or launch.url) if rewarm else None,
    )
    try:
        status = asyncio.run(engine_serve.serve(serving))
    except presets.LaunchError as error:
        _fail(str(error))
    raise typer.Exit(status)


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="Folder of a MiniCPM4 / 4.1 model in safetensors.")],
    target: Annotated[Path, typer.Argument(help="Folder to write; it must not exist.")],
) -> None:
    """Fold MiniCPM's scales into its weights, so that any engine that serves Llama serves it without a plug-in."""
    try:
        from services.inference import convert as converter  # noqa: PLC0415 - needs torch
    except ImportError as error:
        _fail(f"converting needs torch and safetensors ({error}): pip install 'aquiline[vision]'")
    try:
        scaled = converter.convert(source, target, progress=lambda line: typer.echo(line, err=True))
    except converter.ConvertError as error:
        _fail(str(error))
    typer.echo(f"{target}: {scaled} tensors scaled; serve it with --model-path {target}")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False)
def simulate(ctx: typer.Context) -> None:
    """Serve SGLang's API without a model and without a GPU (`aquiline engine simulate --help`)."""
    raise typer.Exit(simulator(ctx.args))


def _fail(sentence: str) -> NoReturn:
    typer.echo(f"refused: {sentence}", err=True)
    raise typer.Exit(2)
