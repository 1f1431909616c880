"""Validates `aquiline` command lines of manifests and pages without running them."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from services.cli.main import COMMANDS, load


def refusal(name: str, arguments: Sequence[str]) -> str | None:
    """Return why `aquiline NAME ARGUMENTS` refuses its arguments, None when it accepts them."""
    if name not in COMMANDS:
        return f"aquiline has no command {name!r}; it has {', '.join(COMMANDS)}"
    command, words = load(name), list(arguments)
    try:
        context = command.make_context(name, words)
        # A command such as `aquiline replay --verify FILE` has sub-commands and runs without one too.
        while hasattr(command, "resolve_command") and (words := [*context._protected_args, *context.args]):  # noqa: SLF001 - click has no public API for it
            name, command, words = command.resolve_command(context, words)
            context = command.make_context(name, words, parent=context)
    except typer.Exit:  # --help
        return None
    except Exception as error:  # noqa: BLE001 - typer keeps its errors' types to itself
        return str(getattr(error, "message", None) or error)
    return None
