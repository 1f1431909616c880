"""`aquiline halt` and `aquiline resume`: an operator's command on the topic `control`, which every worker reads before each signal.

A halt asks for no confirmation, since it must be as quick as possible. Resuming everything in run mode `live` asks once.
"""

from __future__ import annotations

import asyncio
import re
from typing import Annotated

import typer

from schemas import Control, HaltState, RunMode, Topic, topic_name
from schemas.base import SYMBOL_PATTERN
from services.cli.options import ActorOption, ConfigOption, actor_name, checked_reason
from services.core import logs
from services.core.bus import BusError, Position
from services.core.bus.connect import connect
from services.core.clock import SystemClock
from services.core.instruments import Instruments
from services.core.operator_commands import GLOBAL, make_command, publish_command
from services.core.settings import LogSettings, Settings, load

halt_app = typer.Typer()
resume_app = typer.Typer()

SymbolArgument = Annotated[
    str | None, typer.Argument(metavar="SYMBOL", help="A symbol with its venue, such as AAPL.XNAS. [default: every symbol]")
]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why, in a few words. It goes into the log, the cancels and the audit.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Resume everything in run mode live without asking.")]


@halt_app.command()
def halt(reason: ReasonOption, symbol: SymbolArgument = None, actor: ActorOption = None, config: ConfigOption = None) -> None:
    """Stop publishing signals and cancel open ones, of one symbol or of all.

    Every worker reads the command within a second. From then on its triggers end `blocked`. The halt survives restarts, until
    `aquiline resume`.

        aquiline halt --reason "exchange incident"
    """
    settings = load(config)
    position = _command(settings, symbol, HaltState.HALTED, reason, actor)
    typer.echo(f"{_subject(symbol)} is HALTED in run mode {settings.run_mode.value} ({_where(position)}).")
    typer.echo(
        "Within a second every worker stops publishing its signals and cancels those still open; its triggers end `blocked`. "
        f"The halt survives restarts. To end it: aquiline resume{f' {symbol}' if symbol else ''} --reason ..."
    )


@resume_app.command()
def resume(
    reason: ReasonOption, symbol: SymbolArgument = None, actor: ActorOption = None, config: ConfigOption = None, yes: YesOption = False
) -> None:
    """Publish signals again, of one symbol or of all. Cancelled signals stay cancelled.

    Resuming everything does not resume symbols that were halted by name, and a symbol stays halted while everything is. Resuming a symbol
    by name also accepts the price jumps that its bars show: it ends `suspected_split`.

        aquiline resume --reason "exchange is back"
    """
    settings = load(config)
    if symbol is None and settings.run_mode is RunMode.LIVE and not yes:
        typer.confirm("Resume everything in run mode live?", abort=True)
    position = _command(settings, symbol, HaltState.ACTIVE, reason, actor)
    typer.echo(f"{_subject(symbol)} is ACTIVE in run mode {settings.run_mode.value} ({_where(position)}).")
    typer.echo(
        "Within a second every worker acts on new triggers again. "
        + (
            "Symbols that were halted by name stay halted."
            if symbol is None
            else "While everything is halted, this symbol is too; `aquiline resume` without a symbol ends that."
        )
    )


def _command(settings: Settings, symbol: str | None, state: HaltState, reason: str, actor: str | None) -> Position:
    """Publish the command and return its position; raise BusError when the broker does not take it."""
    if symbol is not None and not re.match(SYMBOL_PATTERN, symbol):
        raise typer.BadParameter(f"{symbol!r} is not a symbol with its venue, such as AAPL.XNAS", param_hint="SYMBOL")
    command = make_command(
        settings.run_mode, symbol, state, reason=checked_reason(reason), actor=actor_name(actor), now_ms=SystemClock().now_ms()
    )
    logs.configure(LogSettings(level="warning"), service="control")
    position, known = asyncio.run(_publish(settings, command))
    if not known:
        typer.echo(
            f"Warning: topic {topic_name(Topic.INSTRUMENTS, settings.run_mode)!r} has no record of {symbol}, so no worker decides on it. "
            "Check the spelling.",
            err=True,
        )
    return position


async def _publish(settings: Settings, command: Control) -> tuple[Position, bool]:
    """Publish the command; return its position, and whether its scope is an instrument."""
    clock = SystemClock()
    bus = connect(settings.bus, clock, settings.topics)
    position = await publish_command(bus, command, delivery_timeout_ms=settings.bus.request_timeout_ms)
    # Looked up afterwards: nothing may delay a halt.
    known = command.scope == GLOBAL
    instruments = Instruments(bus, clock, settings.run_mode, "aquiline-control")
    try:
        if not known:
            await instruments.start()
            known = instruments.get(command.scope) is not None
    except BusError:
        known = True  # the command is published, which is what was asked for
    finally:
        await instruments.close()
        await bus.close()
    return position, known


def _subject(symbol: str | None) -> str:
    return symbol or "everything"


def _where(position: Position) -> str:
    return f"topic {position.topic}, offset {position.offset}"
