"""The command line of `aquiline demo`, whose options are the fields of `services.demo.options.Options`."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from typing import Any

import typer

from services.demo.options import Options

app = typer.Typer(rich_markup_mode="markdown", help="Play real market data through every service, and show the signals.")


@app.command()
def demo(**options: Any) -> None:
    """Play real stocks through the services that also run against Kafka and a GPU, and show every signal.

    The demo needs no broker, no Redis and no GPU: the bus is inside this process. In its **first act** a real language model of 135
    million parameters decides, on this machine's CPU: it follows chart setups and says why, without an edge. In its **second act** a
    simulator stands in for an engine on a GPU and shows load, a burst, an outage and the recovery: it has a real prefix cache and the
    timing of a GPU that was measured, and its answers come from fixed rules. The demo ends by itself after some two minutes and writes
    `demo-report.json`, `demo-signals.jsonl`, `demo-audit.jsonl` and the log that it played, `demo-log.jsonl.gz`, to the working
    directory; `aquiline replay --verify demo-audit.jsonl` checks the audit against the log. Exit status: 0, or 1 when a closing check
    fails. Ctrl-C publishes no more bars, drains and reports.

    **Only an engine that is too slow for its bars:**

        aquiline demo --permits 1 --no-burst --no-outage

    **Real parts** (`make up-local` starts them and prints their addresses; the `demo.` topics are emptied first):

        aquiline demo --bus kafka://127.0.0.1:9092 --redis redis://127.0.0.1:6379/0 --engine http://127.0.0.1:30000

    **Another trigger policy:** charts trigger too, and at most every second bar does:

        aquiline demo --set fusion.trigger_on_vision=true --min-gap-bars 2

    **A strategy of your own**, with a feature of its own in every prompt:

        aquiline strategy new momentum
        aquiline demo --strategy momentum
    """
    # These imports take two seconds, which `--help` does not need.
    from services.core import logs  # noqa: PLC0415
    from services.demo.run import run_demo  # noqa: PLC0415
    from services.demo.screen import Screen  # noqa: PLC0415
    from services.demo.setup import set_up  # noqa: PLC0415

    typer.echo("aquiline demo: loading; this takes a few seconds.")
    run = set_up(Options(**options), Path.cwd())
    with Screen() as screen:
        # Inside this context, rich writes what goes to standard error above the panel.
        logs.configure(run.acts[-1].settings.log, service="demo")
        raise typer.Exit(asyncio.run(run_demo(run, screen)))


# Typer reads the options from it.
demo.__signature__ = inspect.signature(Options, eval_str=True)  # type: ignore[attr-defined]
