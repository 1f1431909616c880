"""`aquiline topics`: creates the topics as they have to be, or compares them with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from services.core.bus import Admin
from services.core.bus.connect import connect
from services.core.clock import SystemClock
from services.core.settings import Settings, load
from services.core.topic_admin import INPUTS, check_topics, ensure_topics, kept_for, wanted_topics

app = typer.Typer(help="Create the topics, or compare them with what they should be.", no_args_is_help=True)

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Settings file in TOML; the one that AQUILINE_CONFIG names when not given."),
]
BusOption = Annotated[str | None, typer.Option("--bus", metavar="URL", help="`kafka://host:port`, instead of the settings' `bus.url`.")]


@app.command()
def create(
    partitions: Annotated[int, typer.Option(min=1, help="Partitions of each topic that is shared out between workers.")] = 12,
    replication: Annotated[int, typer.Option(min=1, help="Copies of each partition; 3 on a real cluster.")] = 1,
    input_days: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Days that market and vision features are kept, 90 when not given. A prompt can be written again, and an audit record so "
            "be checked, while they are: 365, as long as the audit, on a real cluster.",
        ),
    ] = None,
    bus: BusOption = None,
    config: ConfigOption = None,
) -> None:
    """Create what is missing. Topics that exist are left as they are; one with another partition count is an error."""
    settings = _settings(config, bus)
    overrides = {} if input_days is None else kept_for(INPUTS, input_days)

    async def run() -> list[str]:
        async with _admin(settings) as admin:
            return await ensure_topics(admin, settings.run_mode, partitions, replication, overrides)

    created = asyncio.run(run())
    for name in created:
        typer.echo(f"created {name}")
    if not created:
        typer.echo("every topic is there")


@app.command()
def describe(bus: BusOption = None, config: ConfigOption = None) -> None:
    """Show each topic beside what it should be, then check that those read and written together fit each other."""
    settings = _settings(config, bus)

    async def run() -> None:
        async with _admin(settings) as admin:
            Console().print(await _table(admin, settings))
            await check_topics(admin, settings.run_mode)

    asyncio.run(run())


async def _table(admin: Admin, settings: Settings) -> Table:
    wanted = wanted_topics(settings.run_mode, partitions=1)
    found = await admin.describe([topic.name for topic in wanted])
    table = Table("topic", "partitions", "unlike what `aquiline topics create` makes")
    for topic in wanted:
        if topic.name not in found:
            table.add_row(topic.name, "-", "does not exist")
            continue
        info = found[topic.name]
        differing = [
            f"{key}={info.config.get(key)} (not {value})"
            for key, value in topic.config.items()
            if key != "min.insync.replicas" and info.config.get(key) != value
        ]
        table.add_row(topic.name, str(info.partitions), "; ".join(differing))
    return table


@asynccontextmanager
async def _admin(settings: Settings) -> AsyncIterator[Admin]:
    bus = connect(settings.bus, SystemClock())
    admin = await bus.admin()
    try:
        yield admin
    finally:
        await admin.close()
        await bus.close()


def _settings(config: Path | None, bus: str | None) -> Settings:
    return load(config, {} if bus is None else {"bus": {"url": bus}})
