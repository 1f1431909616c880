"""`aquiline halt` and `aquiline resume`: an operator's word on the topic `control`, which every worker reads before each signal.

A halt needs no confirmation: it must be as quick as it can be. Resuming everything in run mode `live` asks once.
"""

from __future__ import annotations

import asyncio
import getpass
import re
from pathlib import Path
from typing import Annotated, Final

import typer

from schemas import Control, HaltState, RunMode, Topic, topic_name
from schemas.base import SYMBOL_PATTERN
from services.core import logs
from services.core.bus import BusError, Position
from services.core.bus.connect import connect
from services.core.clock import SystemClock
from services.core.instruments import Instruments
from services.core.settings import LogSettings, Settings, load

_GLOBAL: Final = "global"

halt_app = typer.Typer()
resume_app = typer.Typer()

SymbolArgument = Annotated[
    str | None, typer.Argument(metavar="SYMBOL", help="One symbol with its venue, such as AAPL.XNAS; everything when not given.")
]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why, in your words; it stands in the log, on cancels and in the audit.")]
ActorOption = Annotated[str | None, typer.Option("--actor", help="Who says so; the name of this machine's user when not given.")]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Settings file in TOML; the one that AQUILINE_CONFIG names when not given."),
]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask before everything is resumed in run mode live.")]


@halt_app.command()
def halt(reason: ReasonOption, symbol: SymbolArgument = None, actor: ActorOption = None, config: ConfigOption = None) -> None:
    """Let no signal leave any more, and cancel those that are open."""
    settings = load(config)
    position = _say(settings, symbol, HaltState.HALTED, reason, actor)
    typer.echo(f"{_what(symbol)} is HALTED in run mode {settings.run_mode.value} ({_where(position)}).")
    typer.echo(
        "Every worker reads this within a second: from then on it publishes no signal for it, and cancels those still open; triggers end "
        f"`blocked`. It stays so through restarts, until `aquiline resume{f' {symbol}' if symbol else ''} --reason ...`."
    )


@resume_app.command()
def resume(
    reason: ReasonOption, symbol: SymbolArgument = None, actor: ActorOption = None, config: ConfigOption = None, yes: YesOption = False
) -> None:
    """Let signals leave again; those that were cancelled stay so."""
    settings = load(config)
    if symbol is None and settings.run_mode is RunMode.LIVE and not yes:
        typer.confirm("Resume everything in run mode live?", abort=True)
    position = _say(settings, symbol, HaltState.ACTIVE, reason, actor)
    typer.echo(f"{_what(symbol)} is ACTIVE in run mode {settings.run_mode.value} ({_where(position)}).")
    typer.echo(
        "Every worker reads this within a second and acts on the triggers that come from then on; "
        + (
            "symbols that are halted by name stay halted."
            if symbol is None
            else "while everything is halted, this symbol is too (`aquiline resume` without a symbol ends that)."
        )
    )


def _say(settings: Settings, symbol: str | None, state: HaltState, reason: str, actor: str | None) -> Position:
    """Put the word on the topic and return where it stands; raise BusError when the broker does not take it."""
    if symbol is not None and not re.match(SYMBOL_PATTERN, symbol):
        raise typer.BadParameter(f"{symbol!r} is no symbol with its venue, such as AAPL.XNAS", param_hint="SYMBOL")
    if not reason.strip():
        raise typer.BadParameter("say why, in a few words", param_hint="--reason")
    clock = SystemClock()
    word = Control(
        schema_version=1,
        run_mode=settings.run_mode,
        scope=symbol or _GLOBAL,
        state=state,
        reason=reason[:500],
        actor=(actor or getpass.getuser())[:100],
        ts_ms=clock.now_ms(),
    )
    logs.configure(LogSettings(level="warning"), service="control")
    position, known = asyncio.run(_publish(settings, word))
    if not known:
        typer.echo(
            f"Warning: topic {topic_name(Topic.INSTRUMENTS, settings.run_mode)!r} has no record of {symbol}, so no worker decides on it. "
            "Is it spelled right?",
            err=True,
        )
    return position


async def _publish(settings: Settings, word: Control) -> tuple[Position, bool]:
    """Publish the word; return where it stands, and whether its scope is an instrument."""
    clock = SystemClock()
    bus = connect(settings.bus, clock)
    topic = topic_name(Topic.CONTROL, settings.run_mode)
    try:
        producer = await bus.producer(client_id="aquiline-control", delivery_timeout_ms=settings.bus.request_timeout_ms)
        try:
            position = await (await producer.send(topic, key=word.scope.encode(), value=word.encode()))
        finally:
            await producer.close()
    except BusError as error:
        raise BusError(f"the word is NOT known to have reached the workers; say it again once this is mended: {error}") from error
    # Looked up afterwards: nothing may delay a halt.
    known = word.scope == _GLOBAL
    instruments = Instruments(bus, clock, settings.run_mode, "aquiline-control")
    try:
        if not known:
            await instruments.start()
            known = instruments.get(word.scope) is not None
    except BusError:
        known = True  # the word stands, and that is what was asked for
    finally:
        await instruments.close()
        await bus.close()
    return position, known


def _what(symbol: str | None) -> str:
    return symbol or "everything"


def _where(position: Position) -> str:
    return f"topic {position.topic}, offset {position.offset}"
