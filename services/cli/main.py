"""The `aquiline` command: a table of its sub-commands, each of which is imported only when it runs.

`aquiline --help` must answer at once, and the demo must run where torch is not installed.
"""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import version
from typing import Annotated, Any, Final, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command


class _Entry(NamedTuple):
    where: str
    """`module:attribute` of a `typer.Typer`."""
    summary: str


COMMANDS: Final[dict[str, _Entry]] = {
    "demo": _Entry("services.cli.demo:app", "Play real market data through every service, and show the signals."),
    "config": _Entry("services.cli.config:app", "Check the settings, or print those in force."),
    "strategy": _Entry("services.cli.strategy:app", "Make, check, show and compare strategies."),
    "doctor": _Entry("services.cli.doctor:app", "Check everything that a worker depends on, and report how to fix it."),
    "topics": _Entry("services.cli.topics:app", "Create the topics, or compare them with the configuration that is needed."),
    "secrets": _Entry("services.cli.secrets:app", "Create random passwords as files."),
    "market": _Entry("services.cli.market:app", "Publish candles from files and from the samples."),
    "feed": _Entry("services.cli.feed:app", "Publish live candles from an exchange or from growing files."),
    "engine": _Entry("services.cli.engine:app", "Start, tune, calibrate or simulate the inference engine."),
    "model": _Entry("services.cli.model:app", "Train, evaluate and convert weights of your own."),
    "console": _Entry("services.cli.console:app", "Serve the web page that shows what the workers see and decide."),
    "halt": _Entry("services.cli.halt_and_resume:halt_app", "Stop publishing signals and cancel open ones."),
    "resume": _Entry("services.cli.halt_and_resume:resume_app", "Publish signals again."),
    "backtest": _Entry("services.cli.backtest:app", "Run the worker on historical data, and report what its signals would have made."),
    "replay": _Entry("services.cli.replay:app", "Rebuild the prompts of past decisions: verify, show, or ask an engine again."),
    "export": _Entry("services.cli.export:app", "Write past decisions as training data."),
    "score": _Entry("services.cli.score:app", "Report on the results of the signals."),
    "calibrate": _Entry("services.cli.calibrate:app", "Fit the probabilities of mode `flash` to outcomes."),
    "shadow": _Entry("services.cli.shadow:app", "Compare a candidate in run mode shadow with live."),
    "promote": _Entry("services.cli.promote:app", "Copy a candidate's decision settings to live."),
    "rollback": _Entry("services.cli.rollback:app", "Bring back an earlier version of the live settings."),
    "vision": _Entry("services.cli.vision:app", "Draw charts; train, evaluate and record the chart network."),
}


_COMPLETION: Final = ("install_completion", "show_completion")


class _LazyGroup(TyperGroup):
    """Lists the commands by their summaries, and imports the one that runs."""

    # Typer keeps the click that it is built on to itself, so that its exact types cannot be named here.

    def list_commands(self, ctx: Any) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | None:
        del ctx
        return TyperCommand(cmd_name, help=COMMANDS[cmd_name].summary) if cmd_name in COMMANDS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, placeholder, rest = super().resolve_command(ctx, args)
        return name, placeholder if name is None else load(name), rest


def load(name: str) -> Any:
    """Return the command of that name, importing its module; KeyError when there is none."""
    module, attribute = COMMANDS[name].where.split(":")
    command = get_command(getattr(importlib.import_module(module), attribute))
    command.name = name
    command.params = [option for option in command.params if option.name not in _COMPLETION]  # the root has them
    return command


app = typer.Typer(
    name="aquiline",
    cls=_LazyGroup,
    no_args_is_help=True,
    # Local variables hold passwords, and whole messages.
    pretty_exceptions_show_locals=False,
)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it so
    if wanted:
        typer.echo(f"aquiline {version('aquiline')}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Turn live market streams into strategy signals with a local language model."""


def main() -> None:
    """Run the command. An error that the user can fix prints a sentence and exits with 2 (settings) or 1."""
    try:
        app()
    except Exception as error:
        from services.core.lifecycle import explain  # noqa: PLC0415 - not before it is needed: it imports half of everything

        explained = explain(error)
        if explained is None:
            raise
        code, sentences = explained
        for sentence in sentences:
            typer.echo(f"aquiline: {sentence}", err=True)
        sys.exit(code)
