"""`aquiline engine`: start the engine with a preset, tune it, measure it for the simulator, convert weights, or simulate it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from services.cli import engine_draft
from services.cli.engine_bench import bench
from services.cli.engine_local import local
from services.doctor.engine_start import id_difference_of, prefixes_in_use
from services.fusion.decide.answer import answer_regex
from services.inference.calibrate import CalibrationError
from services.inference.engine import EngineError
from services.inference.launcher import command, presets, serving
from services.inference.launcher.plan import plan
from services.inference.simulator.__main__ import main as simulator
from services.inference.tuner import engine_runs, grid, prompts, report
from services.inference.tuner.sweep import Plan, sweep

app = typer.Typer(name="engine", help="Start, measure, tune or simulate the inference engine.", no_args_is_help=True)
app.command()(local)
app.command()(bench)
app.add_typer(engine_draft.app, name="draft")

_MODEL = Path("models/MiniCPM4.1-8B")
_DRAFT = Path("models/MiniCPM4.1-8B-Eagle3/MiniCPM4_1-8B-Eagle3-bf16")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": False})
def serve(
    ctx: typer.Context,
    *,
    preset: Annotated[str, typer.Option(help="A preset's name (deploy/engine/), or the path of a TOML file.")],
    model_path: Annotated[Path, typer.Option(help="Folder of the target's weights.")] = _MODEL,
    draft_path: Annotated[Path, typer.Option(help="Folder of the EAGLE3 draft's weights.")] = _DRAFT,
    speculation: Annotated[bool, typer.Option(help="Serve with the EAGLE3 draft, or without.")] = True,
    context: Annotated[
        int | None, typer.Option(min=1_024, help="Longest prompt with its answer, in tokens; by default the preset's.")
    ] = None,
    longrope: Annotated[
        bool,
        typer.Option(
            "--longrope",
            help="Open the context beyond the model's native length (131,072 tokens unless --context says another) with the LongRoPE "
            "factors in its config.json; writes a folder beside the model that differs in config.json alone.",
        ),
    ] = False,
    permits: Annotated[int, typer.Option(min=1, help="Calls of that length that must fit in the KV cache at once.")] = 3,
    host: Annotated[str, typer.Option(help="Address to listen on; loopback unless told otherwise.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port to listen on.")] = 30_000,
    ready_file: Annotated[Path | None, typer.Option(help="Created once the engine is warm, removed when it ends.")] = None,
    rewarm: Annotated[bool, typer.Option(help="Prefill the prefixes that Redis lists for this engine.")] = True,
    rewarm_url: Annotated[str | None, typer.Option(help="Address of this engine in the workers' settings, where it differs.")] = None,
    python: Annotated[
        Path, typer.Option(help="The Python that SGLang is installed in, with this package for its plug-in.", show_default="this one")
    ] = Path(sys.executable),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the command and what would be refused; start nothing.")] = False,
) -> None:
    """Start stock SGLang with MiniCPM4.1 and EAGLE3, warm it up, and run until it ends.

    Arguments after `--` are passed to SGLang unchanged.
    """
    try:
        chosen = presets.load(preset)
    except presets.LaunchError as error:
        _fail(str(error))
    planned = plan(
        chosen,
        model_path=model_path,
        draft_path=draft_path if speculation else None,
        context=context,
        longrope=longrope,
        permits=permits,
        host=host,
        port=port,
        extra=ctx.args,
        python=str(python),
    )
    own_tokenizer = planned.model_path / "tokenizer.json"
    difference = asyncio.run(id_difference_of(own_tokenizer, _say)) if own_tokenizer.is_file() else None
    if difference is not None:
        planned.refused.append(f"the model was trained on other ids than the settings make: {difference}")
    for sentence in planned.notes:
        typer.echo(f"note: {sentence}", err=True)
    for sentence in planned.refused:
        typer.echo(f"refused: {sentence}", err=True)
    if dry_run:
        typer.echo(command.shell(planned.launch))
        return
    if planned.refused:
        raise typer.Exit(2)
    url, tokenizer_file = rewarm_url or planned.launch.url, planned.model_path / "tokenizer.json"
    engine = serving.Serving(
        launch=planned.launch,
        context=planned.context,
        at_once=min(permits, chosen.engine.max_running_requests),
        ready_file=ready_file,
        regex=answer_regex(rationale=True),
        prefixes=(lambda: prefixes_in_use(url, tokenizer_file)) if rewarm else None,
    )
    try:
        status = asyncio.run(serving.serve(engine, _say))
    except presets.LaunchError as error:
        _fail(str(error))
    raise typer.Exit(status)


@app.command(context_settings={"allow_extra_args": True})
def tune(
    ctx: typer.Context,
    *,
    preset: Annotated[str, typer.Option(help="The preset to start from: a name, or the path of a TOML file.")],
    out: Annotated[Path, typer.Option(help="Folder for results, preset and plot.")],
    model_path: Annotated[Path, typer.Option(help="Folder of the target's weights.")] = _MODEL,
    draft_path: Annotated[Path, typer.Option(help="Folder of the EAGLE3 draft's weights.")] = _DRAFT,
    prompt_file: Annotated[Path | None, typer.Option(help="JSON Lines of {input_ids}; generated prompts by default.")] = None,
    steps: Annotated[str, typer.Option(help="Draft steps to try.")] = "2,3,5",
    topk: Annotated[str, typer.Option(help="Top-k of the draft to try; 1 is a chain.")] = "1",
    draft_tokens: Annotated[str, typer.Option(help="Draft tokens to try with a top-k above 1.")] = "8",
    windows: Annotated[str, typer.Option(help="Draft windows to try, in tokens; 0 is none. flashinfer supports none.")] = "0",
    backends: Annotated[str | None, typer.Option(help="Attention backends to try; the preset's when absent.")] = None,
    lengths: Annotated[str, typer.Option(help="Context lengths, in tokens.")] = "8192,32768",
    at_once: Annotated[str, typer.Option(help="Calls at once.")] = "1,3,8",
    answer_tokens: Annotated[int, typer.Option(min=2, help="Longest answer.")] = 80,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of calls for each cell of the table.")] = 5,
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port for the engines.")] = 30_010,
    budget_s: Annotated[
        float | None, typer.Option(help="Start no combination that would end later than this many seconds after the start.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the combinations; start nothing.")] = False,
) -> None:
    """Try combinations of EAGLE3's settings on prompts, print a table, and write the best one as a preset.

    Arguments after `--` are passed to SGLang unchanged.
    """
    try:
        chosen = presets.load(preset)
        candidates = grid.candidates(
            chosen,
            steps=_numbers(steps),
            topks=_numbers(topk),
            draft_tokens=_numbers(draft_tokens),
            windows=[window or None for window in _numbers(windows)],
            backends=[chosen.engine.attention_backend] if backends is None else backends.split(","),
        )
        wanted = _numbers(lengths)
        texts = prompts.synthetic(max(_numbers(at_once)), max(wanted)) if prompt_file is None else prompts.read(prompt_file)
    except (presets.LaunchError, ValueError) as error:
        _fail(str(error))
    if dry_run:
        for candidate in candidates:
            typer.echo(grid.label(candidate))
        return
    out.mkdir(parents=True, exist_ok=True)
    grid_plan = Plan(texts, wanted, _numbers(at_once), answer_tokens=answer_tokens, rounds=rounds)
    starter = engine_runs.EngineRuns(model_path, draft_path, grid_plan, port, ctx.args, answer_regex(rationale=True))
    try:
        rows = asyncio.run(sweep(candidates, grid_plan, starter, out=out / "tuned.json", say=_say, budget_s=budget_s))
    except presets.LaunchError as error:
        _fail(str(error))
    try:
        typer.echo(report.finish(rows, out))
    except ValueError as error:
        _fail(str(error))


@app.command()
def calibrate(
    *,
    url: Annotated[str, typer.Option(help="The engine's address; nothing else should be using it.")],
    out: Annotated[Path, typer.Option(help="The calibration file to write.")],
    accelerator: Annotated[str, typer.Option(help="Name of the GPU, such as 'one RTX 4090'.")],
    lengths: Annotated[str, typer.Option(help="Context lengths, in tokens: at least two.")] = "8192,32768",
    at_once: Annotated[str, typer.Option(help="Calls at once.")] = "1,3,8",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of calls for each point.")] = 5,
) -> None:
    """Measure a live engine and write the simulator's calibration file."""
    try:
        made = asyncio.run(
            engine_runs.calibrated(
                url,
                lengths=_numbers(lengths),
                at_once=_numbers(at_once),
                rounds=rounds,
                accelerator=accelerator,
                say=_say,
            )
        )
    except (EngineError, CalibrationError, ValueError) as error:
        _fail(str(error))
    out.write_text(made.model_dump_json(indent=2) + "\n", encoding="utf-8")
    typer.echo(f"{out}: the simulator reproduces the {len(made.points)} points within {made.tolerance:.0%}")


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
        scaled = converter.convert(source, target, progress=_say)
    except converter.ConvertError as error:
        _fail(str(error))
    typer.echo(f"{target}: {scaled} tensors scaled; serve it with --model-path {target}")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False)
def simulate(ctx: typer.Context) -> None:
    """Serve SGLang's API without a model and without a GPU (`aquiline engine simulate --help`)."""
    raise typer.Exit(simulator(ctx.args))


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r} must be whole numbers with commas between them, such as 1,3,8") from None


def _fail(sentence: str) -> NoReturn:
    typer.echo(f"refused: {sentence}", err=True)
    raise typer.Exit(2)
