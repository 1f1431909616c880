"""`aquiline topics`: creates the topics with the configuration that Aquiline needs, or compares existing ones with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from services.cli.options import BusOption, ConfigOption, settings_on
from services.core.bus import Admin
from services.core.bus.connect import connect
from services.core.clock import SystemClock
from services.core.settings import Settings
from services.core.topic_admin import INPUTS, check_topics, ensure_topics, kept_for, wanted_topics

app = typer.Typer(help="Create the topics, or compare them with the configuration that Aquiline needs.", no_args_is_help=True)


@app.command()
def create(
    partitions: Annotated[int, typer.Option(min=1, help="Partitions of each topic that workers share.")] = 12,
    replication: Annotated[int, typer.Option(min=1, help="Replicas of each partition; use 3 on a production cluster.")] = 1,
    input_days: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Days that market and vision features are kept. Audit records can be verified for as long: use 365, as long as the audit "
            "itself is kept, on a production cluster. [default: 90]",
        ),
    ] = None,
    bus: BusOption = None,
    config: ConfigOption = None,
) -> None:
    """Create the topics that do not exist. Existing ones are left as they are; another partition count is an error."""
    settings = settings_on(config, bus)
    overrides = {} if input_days is None else kept_for(INPUTS, input_days)

    async def run() -> list[str]:
        async with _admin(settings) as admin:
            return await ensure_topics(admin, settings.run_mode, partitions, replication, overrides)

    created = asyncio.run(run())
    for name in created:
        typer.echo(f"created {settings.topics.on_broker(name)}")
    if not created:
        typer.echo("every topic exists")


@app.command()
def describe(bus: BusOption = None, config: ConfigOption = None) -> None:
    """Show where each topic differs from what `topics create` makes, then check the partition counts.

    Topics that one worker reads and writes together need one count.
    """
    settings = settings_on(config, bus)

    async def run() -> None:
        async with _admin(settings) as admin:
            Console().print(await _table(admin, settings))
            await check_topics(admin, settings.run_mode)

    asyncio.run(run())


async def _table(admin: Admin, settings: Settings) -> Table:
    wanted = wanted_topics(settings.run_mode, partitions=1)
    found = await admin.describe([topic.name for topic in wanted])
    table = Table("topic", "partitions", "differs from `aquiline topics create`")
    for topic in wanted:
        if topic.name not in found:
            table.add_row(settings.topics.on_broker(topic.name), "-", "does not exist")
            continue
        info = found[topic.name]
        differing = [
            f"{key}={info.config.get(key)} (not {value})"
            for key, value in topic.config.items()
            if key != "min.insync.replicas" and info.config.get(key) != value
        ]
        table.add_row(info.broker_name, str(info.partitions), "; ".join(differing))
    return table


@asynccontextmanager
async def _admin(settings: Settings) -> AsyncIterator[Admin]:
    bus = connect(settings.bus, SystemClock(), settings.topics)
    admin = await bus.admin()
    try:
        yield admin
    finally:
        await admin.close()
        await bus.close()
