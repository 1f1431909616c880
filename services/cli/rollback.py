"""`aquiline rollback`: an earlier version of the live settings file, from the history beside it."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from services.cli.options import ActorOption, LiveOption, actor_name, checked_reason
from services.cli.promote import say_what_to_restart
from services.core.settings import SettingsError
from services.promotion.settings_history import History, Version

app = typer.Typer(rich_markup_mode="markdown")


@app.command()
def rollback(
    *,
    live: LiveOption,
    reason: Annotated[str | None, typer.Option("--reason", help="Why, in a few words. It is stored in the history.")] = None,
    to: Annotated[
        int | None, typer.Option("--to", min=1, help="The version to bring back. [default: the one before the present one]")
    ] = None,
    actor: ActorOption = None,
    listed: Annotated[bool, typer.Option("--list", help="Show the history, and change nothing.")] = False,
) -> None:
    """Bring back the live settings file as it was before the last promotion, or as any version had it.

    It needs neither Kafka nor an engine: the text of every version is in the history beside the file. A rollback is a version too, and
    can be rolled back.

        aquiline rollback --live live.toml --reason "slower since the promotion"
    """
    from services.promotion.promote_and_rollback import roll_back  # noqa: PLC0415 - imports the engines

    history = History(live)
    if not live.is_file():
        raise SettingsError(f"settings file {str(live)!r} does not exist or is not a file")
    if listed:
        _show(history)
        return
    number, version = roll_back(history, to, actor_name(actor), checked_reason(reason))
    if version is None:
        typer.echo(f"{live} already has the text of version {number}; nothing was changed.")
        return
    typer.echo(f"{live} has the text of version {number} again, as version {version.number} of its history.")
    say_what_to_restart(live)


def _show(history: History) -> None:
    table = Table("version", "when (UTC)", "action", "who", "why", "changes")
    for version in history.versions():
        table.add_row(
            str(version.number),
            version.at.removesuffix("+00:00"),
            _action(version),
            escape(version.actor),
            escape(version.reason),
            escape("\n".join(map(str, version.changes))),
        )
    Console().print(table)


def _action(version: Version) -> str:
    if version.restores is not None:
        return f"{version.action} to {version.restores}"
    return f"{version.action}, against its comparison" if version.override is not None else version.action
