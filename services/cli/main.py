"""The `aquiline` command: one line a sub-command, each imported only when it is asked for.

`aquiline --help` has to answer at once, and the demo must run where torch is not installed.
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
    "demo": _Entry("services.cli.demo:app", "Show Aquiline at work, on real market data and a simulated engine."),
    "config": _Entry("services.cli.config:app", "Check settings, or show those that hold."),
    "halt": _Entry(
        "services.cli.control:halt_app", "Let no signal leave any more, of one symbol or of all, and cancel those that are open."
    ),
    "resume": _Entry("services.cli.control:resume_app", "Let signals leave again, of one symbol or of all."),
    "doctor": _Entry("services.cli.doctor:app", "Say what is wrong with everything that a worker stands on, and how to mend it."),
    "shadow": _Entry("services.cli.shadow:app", "Compare a candidate in run mode shadow with live."),
    "promote": _Entry("services.cli.promotion:promote_app", "Have live decide as a candidate does that was compared with it."),
    "rollback": _Entry("services.cli.promotion:rollback_app", "Bring the live settings back as they were before a promotion."),
    "topics": _Entry("services.cli.topics:app", "Create the topics, or compare them with what they should be."),
    "secrets": _Entry("services.cli.secrets:app", "Make random passwords as files, for a stack of its own."),
    "market": _Entry("services.cli.market:app", "Market features: replay candles from files."),
    "feed": _Entry("services.cli.feed:app", "Publish candles as they come, from an exchange or from files that grow."),
    "vision": _Entry("services.cli.vision:app", "Vision features: draw charts, train and judge the model that reads them."),
    "replay": _Entry("services.cli.replay:app", "Build any decision's prompt again from log and audit: check, show, ask anew."),
    "score": _Entry("services.cli.score:app", "Say whether the signals were any good: the report on what became of them."),
    "backtest": _Entry(
        "services.cli.backtest:app", "Play history to the worker on a virtual clock, and report what its signals would have made."
    ),
    "engine": _Entry("services.cli.engine:app", "The engine: launch, tune or simulate it."),
}


_COMPLETION: Final = ("install_completion", "show_completion")


class _LazyGroup(TyperGroup):
    """Lists commands by their summaries, and imports the one that is run."""

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
    _version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")] = False,
) -> None:
    """Language models deciding on live market streams: features in, accountable strategy signals out."""


def main() -> None:
    """Run the command; what its user can mend is told in a sentence, and ends with 2 (settings) or 1."""
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
