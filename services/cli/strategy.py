"""`aquiline strategy`: makes, checks, shows and compares strategies."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from services.cli.options import ConfigOption
from services.core.settings import Settings, SettingsError, load
from services.strategy.folder import INSTRUCTIONS, TOML, StrategyError, new

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="Make, check, show and compare strategies.")

FolderArgument = Annotated[
    Path | None, typer.Argument(metavar="[FOLDER]", help="The strategy's folder. [default: the strategy that the settings name]")
]


@app.callback()
def strategy() -> None:
    """Make, check, show and compare strategies.

    A strategy is a folder: `strategy.toml` says what the model is shown, when it is asked and within which limits, `instructions.md`
    gives the task in your words, and `features.py`, if there is one, computes features of your own. The answer contract follows the
    instructions by itself.

        aquiline strategy new momentum
        aquiline strategy check momentum
        aquiline strategy show momentum
        aquiline demo --strategy momentum
    """


@app.command("new")
def make(name: Annotated[str, typer.Argument(metavar="FOLDER", help="The folder to make; its last part is the strategy's name.")]) -> None:
    """Make a strategy's folder: the shipped strategy, with a feature of its own as an example. Nothing is overwritten."""
    folder = Path(name)
    try:
        new(folder, folder.name)
    except StrategyError as error:
        raise SettingsError(str(error)) from error
    typer.echo(f"Made {folder}: edit {TOML}, {INSTRUCTIONS} and features.py, then run `aquiline strategy check {folder}`.")


@app.command()
def check(folder: FolderArgument = None, config: ConfigOption = None) -> None:
    """Report what is wrong with a strategy, and what its prompts cost.

    The folder is read, a prompt is built from made-up bars twice, and both are compared. The settings name the tokenizer and the chat
    template. The exit status is 0 when nothing is wrong, else 1.
    """
    from services.fusion.service import load_tokenizer  # noqa: PLC0415 - not before it is needed: `--help` must be quick
    from services.strategy_check.findings import check as find  # noqa: PLC0415

    settings = _settings(folder, config)
    try:
        found = asyncio.run(find(settings, load_tokenizer(settings.engine), folder))
    except ValueError as error:
        raise SettingsError(str(error)) from error
    cost = found.cost
    for text in (*(f"error: {error}" for error in found.errors), *(f"note: {note}" for note in found.notes)):
        typer.echo(text)
    typer.echo(
        f"{found.version}: the longest prompt has {cost.tokens:,} tokens, of which {cost.cached_tokens:,} are cached from one decision to "
        f"the next, and takes {cost.kv_bytes / 2**20:,.0f} MiB of KV cache. First token after {cost.first_token_cached_ms:,.0f} ms, "
        f"{cost.first_token_cold_ms:,.0f} ms without the cache ({cost.gpu}, computed from its calibration)."
    )
    if found.errors:
        raise typer.Exit(1)


@app.command()
def show(folder: FolderArgument = None, config: ConfigOption = None) -> None:
    """Print the exact prompt of a made-up bar, with its tokens counted and the cached part marked.

    Special tokens are printed by their names. `aquiline replay --show` prints the prompt of a decision that was made.
    """
    from services.fusion.service import load_tokenizer  # noqa: PLC0415 - not before it is needed: `--help` must be quick
    from services.strategy_check.prompt_preview import features_of, preview  # noqa: PLC0415

    settings = _settings(folder, config)
    try:
        prompt = asyncio.run(preview(settings, load_tokenizer(settings.engine), features_of(folder)))
    except ValueError as error:
        raise SettingsError(str(error)) from error
    typer.echo(f"=== {prompt.version}, {prompt.interval}, mode {settings.fusion.mode}: {prompt.tokens:,} tokens")
    typer.echo(
        f"=== cached prefix, {prompt.prefix_tokens:,} tokens, {prompt.rules_tokens:,} of them rules; it grows by a row with each bar"
    )
    typer.echo(prompt.prefix, nl=not prompt.prefix.endswith("\n"))
    typer.echo(f"=== new in each decision, {prompt.tokens - prompt.prefix_tokens:,} tokens")
    typer.echo(prompt.tail)


@app.command()
def diff(
    before: Annotated[Path, typer.Argument(metavar="FOLDER", help="A strategy's folder.")],
    after: Annotated[Path, typer.Argument(metavar="FOLDER", help="Another one.")],
) -> None:
    """Print in which values, and in which words of the rules, two strategies differ. The exit status is 0 when they do not, else 1."""
    from services.strategy_check.differences import differences  # noqa: PLC0415 - not before it is needed: `--help` must be quick

    try:
        found = differences(before, after)
    except StrategyError as error:
        raise SettingsError(str(error)) from error
    for line in found.lines:
        typer.echo(line)
    if found.differ:
        raise typer.Exit(1)


def _settings(folder: Path | None, config: Path | None) -> Settings:
    return load(config, {} if folder is None else {"fusion": {"strategy": str(folder)}})
