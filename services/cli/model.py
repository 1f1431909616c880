"""`aquiline model`: weights of your own: training data, an adapter, its evaluation, and the forms that engines serve.

torch, transformers and peft are imported by `tune` and `convert` alone, and only once they run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

if TYPE_CHECKING:
    from services.core.settings import EngineSettings

app = typer.Typer(name="model", help="Train, evaluate and convert weights of your own.", no_args_is_help=True, rich_markup_mode="markdown")

TRAIN_EXTRA = "pip install 'aquiline[train]'"
TokenizerOption = Annotated[
    Path | None,
    typer.Option("--tokenizer-file", help="The model's tokenizer.json.", show_default="that of the settings", metavar="FILE"),
]
ChatTemplateOption = Annotated[str, typer.Option("--chat-template", help="The model's chat template.")]
ExamplesArgument = Annotated[Path, typer.Argument(help="File that `aquiline model prepare` wrote.", metavar="EXAMPLES")]
LearningRateOption = Annotated[float, typer.Option("--learning-rate", help="Highest learning rate, at most 1.")]
BatchTokensOption = Annotated[int, typer.Option("--batch-tokens", min=1, help="Tokens of a step, padding included.")]
EpochsOption = Annotated[int, typer.Option("--epochs", min=1, help="Times that each example is seen.")]
StepsOption = Annotated[int, typer.Option("--steps", min=0, help="Most steps; 0 for all of the epochs.")]
BudgetOption = Annotated[float | None, typer.Option("--budget-s", help="Take only as many steps as fit in this many seconds.")]
DryRunOption = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Train two steps of a tiny random model instead of MODEL and keep nothing, to see that packages and examples are there.",
    ),
]


@app.command()
def samples(
    folder: Annotated[Path, typer.Argument(help="Folder for the exports, a folder of its own for each shape of prompt.")],
    *,
    tokenizer_file: TokenizerOption = None,
    chat_template: ChatTemplateOption = "chatml",
    vision: Annotated[str, typer.Option(help="Recorded vision features, as `aquiline backtest --vision` takes them.")] = "recorded",
) -> None:
    """Export decisions on the shipped stocks as training data.

    Chart setups decide on every daily bar from 2000 to 2013 in backtests with prompts of 1,000 to 8,000 tokens. Prompts before 2010
    are for training, later ones for testing. The exports are what `aquiline export training` writes of your own decisions.
    """
    from services.core import logs  # noqa: PLC0415 - `--help` does not wait for the services
    from services.core.settings import LogSettings  # noqa: PLC0415
    from services.training.sample_runs import export_samples  # noqa: PLC0415

    logs.configure(LogSettings(level="error"), service="model")
    written = asyncio.run(export_samples(folder, tokenizer_file=tokenizer_file, chat_template=chat_template, vision=vision, progress=say))
    typer.echo(f"next: aquiline model prepare {' '.join(map(str, written))} --out examples.npz.xz")


@app.command()
def prepare(
    exports: Annotated[list[Path], typer.Argument(help="Folders that `aquiline export training` or `aquiline model samples` wrote.")],
    *,
    out: Annotated[Path, typer.Option(help="File to write.", metavar="FILE")],
    tokenizer_file: TokenizerOption = None,
    chat_template: ChatTemplateOption = "chatml",
    train: Annotated[
        list[int], typer.Option(min=1, help="Most training examples of each export; repeat it for another count of each that follows.")
    ] = [2_000],  # noqa: B006 - typer reads it alone
    test: Annotated[int, typer.Option(min=1, help="Most test examples of each export.")] = 400,
    max_tokens: Annotated[int, typer.Option(min=256, help="Longer examples are left out.")] = 8_192,
    teacher: Annotated[
        Literal["outcome", "kind"],
        typer.Option(help="`outcome`: keep positions that made money; `kind`: keep those of kinds that made money on average."),
    ] = "outcome",
    seed: Annotated[int, typer.Option(help="Decides which examples are taken.")] = 0,
) -> None:
    """Write training examples: prompts and what should have been answered, as token ids.

    The teacher is hindsight with costs: it keeps a position that made money, by itself or on average over its kind in the training part,
    and that a fact of the prompt supports; elsewhere it abstains. Its rationales quote the prompt's facts.
    """
    from services.fusion.service import load_tokenizer  # noqa: PLC0415
    from services.training import examples  # noqa: PLC0415
    from services.training.prepare import Wanted, made_with  # noqa: PLC0415
    from services.training.prepare import prepare as make  # noqa: PLC0415

    _check_writable(out)
    tokenizer = load_tokenizer(_engine_settings(tokenizer_file))
    try:
        made = make(exports, tokenizer, chat_template, Wanted(train, test, max_tokens, seed, teacher), say)
    except ValueError as error:  # a template or tokenizer that does not fit, or exports whose times do not follow each other
        _fail(str(error))
    for reason, count in made.left_out.most_common():
        say(f"left out {count}: {reason}")
    if not made.examples:
        _fail(f"no example could be made of {', '.join(map(str, exports))}; the lines above say why")
    try:
        examples.save(made.examples, out, made_with(tokenizer, chat_template))
    except OSError as error:
        _fail(f"{out} cannot be written: {error}")
    typer.echo(
        f"{out}: {len(made.examples):,} examples, {sum(one.ids.size for one in made.examples):,} tokens, {out.stat().st_size:,} bytes"
    )


@app.command()
def tune(
    examples_file: ExamplesArgument,
    *,
    model: Annotated[Path, typer.Option(help="Folder of a model in Llama's form, or a GGUF file of one.")],
    out: Annotated[Path, typer.Option(help="Folder for the adapter; an interrupted run in it is continued.", metavar="FOLDER")],
    start: Annotated[Path | None, typer.Option(help="Folder of an adapter that the training begins with.", metavar="FOLDER")] = None,
    rank: Annotated[int, typer.Option(min=1, help="Rank of the LoRA.")] = 8,
    decision_weight: Annotated[
        float, typer.Option(min=1.0, help="How often a token of the decision counts, against once for one of the rationale.")
    ] = 5.0,
    learning_rate: LearningRateOption = 1e-3,
    batch_tokens: BatchTokensOption = 32_768,
    epochs: EpochsOption = 1,
    steps: StepsOption = 0,
    budget_s: BudgetOption = None,
    held_out: Annotated[int, typer.Option(min=0, help="Test examples that the loss is measured on, before and after.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Decides the order, and the adapter's start.")] = 0,
    dry_run: DryRunOption = False,
) -> None:
    """Train a LoRA adapter on examples.

    Ctrl-C stops after a step and writes a checkpoint; the same command continues from it.
    """
    with until_stopped() as wanted:
        from services.training.adapter_training import AdapterSettings, adapter_in, train_adapter  # noqa: PLC0415 - torch
        from services.training.command_inputs import llama_folder, read_inputs, spread  # noqa: PLC0415
        from services.training.tiny import dry_examples, dry_run_folder, tiny_model  # noqa: PLC0415

        inputs = read_inputs(examples_file)
        settings = AdapterSettings(
            rank=rank,
            decision_weight=decision_weight,
            learning_rate=learning_rate,
            batch_tokens=batch_tokens,
            epochs=epochs,
            steps=steps,
            budget_s=budget_s,
            seed=seed,
        )
        if dry_run:
            if start is not None:
                adapter_in(start)
            train, test = dry_examples(inputs.train), dry_examples(inputs.test)
            small = AdapterSettings(rank=rank, decision_weight=decision_weight, batch_tokens=512, epochs=2, steps=2, seed=seed)
            with dry_run_folder(out) as folder:
                tiny = tiny_model(folder / "tiny-model", [*train, *test])
                done = train_adapter(tiny, train, spread(test, held_out), folder, small, progress=say, wanted=wanted)
        else:
            folder = llama_folder(model, out, inputs, say)
            test = spread(inputs.test, held_out)
            done = train_adapter(folder, inputs.train, test, out, settings, start=start, progress=say, wanted=wanted)
    ended(
        done,
        dry_run,
        f"{out}: adapter after {done.steps} steps, {done.seconds:.0f} s; next: aquiline model convert {model} MERGED --adapter {out}",
    )


@app.command()
def convert(
    model: Annotated[Path, typer.Argument(help="Folder of a model in Llama's form, or a GGUF file of one.")],
    out: Annotated[Path, typer.Argument(help="Folder to write; it must not exist.")],
    *,
    adapter: Annotated[Path | None, typer.Option(help="Folder of an adapter to merge.", metavar="FOLDER")] = None,
    form: Annotated[str, typer.Option(help="`llama`, or `minicpm` for MiniCPM's own form, which the SGLang plug-in serves.")] = "llama",
    scale_emb: Annotated[float, typer.Option(help="MiniCPM's scale of the embedding.")] = 12.0,
    scale_depth: Annotated[float, typer.Option(help="MiniCPM's scale of the depth.")] = 1.4,
    dim_model_base: Annotated[int, typer.Option(help="MiniCPM's base width of the head.")] = 256,
) -> None:
    """Write a model with an adapter merged in, in Llama's or in MiniCPM's form (the inverse of `aquiline engine convert`)."""
    if form not in {"llama", "minicpm"}:
        raise typer.BadParameter(f"{form!r} is neither llama nor minicpm", param_hint="--form")
    try:
        from services.training import model_folder  # noqa: PLC0415 - torch
        from services.training.model_files import ModelError  # noqa: PLC0415
    except ImportError as error:
        _fail(f"converting needs torch and safetensors ({error}): {TRAIN_EXTRA}")
    scales = model_folder.Scales(scale_emb, scale_depth, dim_model_base) if form == "minicpm" else None
    try:
        model_folder.write_form(model, out, adapter=adapter, scales=scales)
    except ModelError as error:
        _fail(str(error))
    typer.echo(f"{out}: {form} form{'' if adapter is None else f', with the adapter of {adapter}'}; serve it with --model-path {out}")


@app.command("eval")
def evaluate(
    examples_file: ExamplesArgument,
    *,
    url: Annotated[str, typer.Option(help="Address of the engine that serves the model.")],
    kind: Annotated[str, typer.Option(help="Kind of engine, as `engine.kind`.")] = "llamacpp",
    tokenizer_file: TokenizerOption = None,
    out: Annotated[Path | None, typer.Option(help="Write figures and answers to this JSON file.", metavar="FILE")] = None,
    count: Annotated[int, typer.Option(min=1, help="Most test prompts, the earliest and latest alike.")] = 400,
    at_once: Annotated[int, typer.Option(min=1, help="Calls at once.")] = 1,
    grammar: Annotated[bool, typer.Option(help="Constrain the answers as a worker does, or leave them free.")] = True,
) -> None:
    """Ask an engine the test prompts, and judge its answers: validity, accuracy, calibration and net returns.

    Beside the model stand the majority's action and the rule of the setups alone. Intervals are 95 %, from a block bootstrap. With --out
    the same command continues an interrupted run: answers are kept in FILE.part as they come.
    """
    import orjson  # noqa: PLC0415

    from services.inference.engine import EngineError  # noqa: PLC0415
    from services.training.answers_so_far import part_of  # noqa: PLC0415
    from services.training.command_inputs import check_tokenizer, read_inputs, spread  # noqa: PLC0415
    from services.training.evaluation import ask_engine, judge, row_of  # noqa: PLC0415

    if out is not None:
        _check_writable(out)
    settings = _engine_settings(tokenizer_file, kind=kind, urls=[url])
    try:
        inputs = read_inputs(examples_file, to_train=False)
        if settings.tokenizer_file is not None:
            check_tokenizer(inputs, settings.tokenizer_file)
        asking = ask_engine(settings, spread(inputs.test, count), results=out, at_once=at_once, grammar=grammar, progress=say)
        asked = asyncio.run(asking)
    except KeyboardInterrupt:
        typer.echo("stopped" if out is None else "stopped; the same command continues", err=True)
        raise typer.Exit(130) from None
    except EngineError as error:
        _fail(f"the engine at {url} cannot be asked: {error.detail}; start it, or name another --url")
    except (OSError, ValueError) as error:
        _fail(str(error))
    figures = judge(asked)
    for name, value in figures.items():
        typer.echo(f"{name}: {value}")
    if out is not None:
        out.write_bytes(orjson.dumps({"figures": figures, "answers": [row_of(one) for one in asked]}, option=orjson.OPT_INDENT_2))
        part_of(out).unlink()


@contextmanager
def until_stopped() -> Iterator[Callable[[], bool]]:
    """Yield whether to go on: false once Ctrl-C or SIGTERM has come. Errors end the command with a sentence."""
    from services.training.command_inputs import stop_signals  # noqa: PLC0415

    try:
        with stop_signals() as wanted:
            yield wanted
    except ImportError as error:
        _fail(f"training needs {error.name}: {TRAIN_EXTRA}")
    except (OSError, ValueError) as error:
        _fail(str(error))


def ended(done: Any, dry_run: bool, sentence: str) -> None:  # noqa: FBT001 - the option
    """Print `sentence`, or that the training was dry or was stopped, and end then with 130."""
    if dry_run and not done.stopped:
        typer.echo(f"dry run: {done.steps} steps of a tiny random model are trained, and nothing is kept")
    elif done.stopped:
        typer.echo("stopped" if dry_run else f"stopped after step {done.steps}; the same command continues", err=True)
        raise typer.Exit(130)
    else:
        typer.echo(sentence)


def _engine_settings(tokenizer_file: Path | None, **changes: Any) -> EngineSettings:
    """Return the engine's settings with these changes; raise SettingsError."""
    from services.core.settings import load  # noqa: PLC0415

    given = {} if tokenizer_file is None else {"tokenizer_file": tokenizer_file}
    return load(overrides={"engine": changes | given}).engine


def _check_writable(file: Path) -> None:
    """Refuse a file that cannot be written before the work, not after it."""
    if file.is_dir() or not file.absolute().parent.is_dir():
        _fail(f"{file} cannot be written: {'it is a folder' if file.is_dir() else 'its folder does not exist'}")


def say(line: str) -> None:
    """Print a line of progress."""
    typer.echo(line, err=True)


def _fail(sentence: str) -> NoReturn:
    typer.echo(f"refused: {sentence}", err=True)
    raise typer.Exit(2)
