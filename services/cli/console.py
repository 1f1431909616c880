"""`aquiline console`: serve the web page that shows what the workers see and decide."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from services.cli.options import BusOption, ConfigOption
from services.core import logs
from services.core.settings import load

app = typer.Typer(rich_markup_mode="markdown", help="Serve the web page that shows what the workers see and decide.")


@app.command()
def console(
    *,
    port: Annotated[int | None, typer.Option(min=0, max=65_535, help="Port of the page; overrides `console.port` of the settings.")] = None,
    bus: BusOption = None,
    config: ConfigOption = None,
) -> None:
    """Serve the console until SIGTERM or Ctrl-C: decisions as they arrive, symbols with their signals, prompts, and the score.

    It reads the topics outside any consumer group, so it never slows a worker, and writes nothing but halts and resumes. Those need
    `console.token`:

        AQUILINE_CONSOLE__TOKEN=$(openssl rand -hex 16) aquiline console --config aquiline.toml

    Needs `pip install 'aquiline[console]'`.
    """
    # These imports take a second, which `--help` need not wait for.
    from services.console.__main__ import build  # noqa: PLC0415
    from services.core.lifecycle import serve  # noqa: PLC0415

    # Health pages have a port of their own where they are asked for: a worker on this machine has the usual one.
    sections: dict[str, Any] = {"http": {"port": 0}}
    if bus is not None:
        sections["bus"] = {"url": bus}
    if port is not None:
        sections["console"] = {"port": port}
    settings = load(config, sections)
    logs.configure(settings.log, service="console")
    typer.echo(f"aquiline console: run mode {settings.run_mode.value}, {settings.bus.url}; Ctrl-C ends it.")
    asyncio.run(serve(settings, build))
