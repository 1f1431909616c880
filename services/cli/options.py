"""Options that several commands share, and what their values become."""

from __future__ import annotations

import datetime as dt
import getpass
from pathlib import Path
from typing import Annotated, Final, overload

import typer

from services.core.settings import Settings, SettingsError, load

DAY: Final = ["%Y-%m-%d"]
TIME: Final = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Settings file in TOML. [default: the file that AQUILINE_CONFIG names]"),
]
BusOption = Annotated[str | None, typer.Option("--bus", metavar="URL", help="`kafka://host:port`; overrides `bus.url` of the settings.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, such as `scoring.cost_bps=5`. Repeatable."),
]
OutcomesOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Outcomes from a file instead of the topic: `SignalOutcome` messages, one a line (`.jsonl`, `.gz`)."),
]
EndedSinceOption = Annotated[
    dt.datetime | None,
    typer.Option(formats=TIME, metavar="TIME", help="Only signals that ended at this time or later, in market time (UTC)."),
]
EndedUntilOption = Annotated[
    dt.datetime | None,
    typer.Option(formats=TIME, metavar="TIME", help="Only signals that ended before this time, in market time (UTC)."),
]
AuditedSinceOption = Annotated[
    dt.datetime | None, typer.Option(formats=TIME, metavar="TIME", help="Only audit records appended at this time or later (UTC).")
]
AuditedUntilOption = Annotated[
    dt.datetime | None, typer.Option(formats=TIME, metavar="TIME", help="Only audit records appended before this time (UTC).")
]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why, in a few words. It is stored with the change.")]
LiveOption = Annotated[
    Path, typer.Option("--live", metavar="FILE", help="Settings file of the live workers; its history is kept beside it.")
]
ActorOption = Annotated[str | None, typer.Option("--actor", help="Who makes the change. [default: the user of this machine]")]


def settings_on(config: Path | None, bus: str | None) -> Settings:
    """Return the settings of `--config`, with the bus of `--bus`; raise SettingsError."""
    return load(config, {} if bus is None else {"bus": {"url": bus}})


def kafka_settings_on(config: Path | None, bus: str | None) -> Settings:
    """Return the same for a command that publishes for other processes; raise SettingsError."""
    settings = settings_on(config, bus)
    if settings.bus.url.startswith("memory:"):
        raise SettingsError("memory:// lives inside one process, so nobody would read what is published; name a kafka:// bus")
    return settings


@overload
def epoch_ms(time: dt.datetime) -> int: ...
@overload
def epoch_ms(time: None) -> None: ...
@overload
def epoch_ms(time: dt.datetime | None) -> int | None: ...
def epoch_ms(time: dt.datetime | None) -> int | None:
    """Return a time of the command line, which is in UTC, in milliseconds since 1970."""
    return None if time is None else round(time.replace(tzinfo=dt.UTC).timestamp() * 1_000)


def checked_reason(reason: str | None) -> str:
    """Return the reason as it is stored; raise BadParameter when it says nothing."""
    if reason is None or not reason.strip():
        raise typer.BadParameter("say why, in a few words", param_hint="--reason")
    return reason[:500]


def actor_name(actor: str | None) -> str:
    """Return the name of the user who makes a change."""
    return (actor or getpass.getuser())[:100]
