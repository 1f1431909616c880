"""The command line of `aquiline demo`."""

from __future__ import annotations

import asyncio
import datetime as dt
from pathlib import Path
from typing import Annotated, Final

import typer

from services.demo.options import BARS, MODEL_BARS, Options, Vision

app = typer.Typer(rich_markup_mode="markdown", help="Play real market data through every service, and show the signals.")

_HISTORY_FROM: Final = "2009-01-01"
_DAY: Final = ["%Y-%m-%d"]


@app.command()
def demo(
    *,
    symbols: Annotated[str, typer.Option(help="Comma-separated stocks of AAPL, FB, GOOG, IBM, MSFT.")] = "AAPL,FB,GOOG,IBM,MSFT",
    model_bars: Annotated[int, typer.Option(min=0, help="Bars a symbol in the act of the real model; 0 leaves the act out.")] = MODEL_BARS,
    bars: Annotated[int, typer.Option(min=1, help="Bars a symbol in the paced phase.")] = BARS,
    pace: Annotated[float, typer.Option(min=0.01, help="Bars a second a symbol.")] = 1.5,
    start: Annotated[
        dt.datetime | None,
        typer.Option(formats=_DAY, metavar="DATE", help="First day of the paced phase; by default the run ends with the data."),
    ] = None,
    history_from: Annotated[
        dt.datetime,
        typer.Option(
            formats=_DAY,
            metavar="DATE",
            show_default=_HISTORY_FROM,
            help="First day of the history that is loaded before the start; the data begin in March 2000.",
        ),
    ] = dt.datetime.fromisoformat(_HISTORY_FROM),
    burst: Annotated[bool, typer.Option(help="Play ten seconds at ten times the pace.")] = True,
    outage: Annotated[bool, typer.Option(help="Stop the engine for three seconds, then show the recovery.")] = True,
    vision: Annotated[
        Vision,
        typer.Option(help="Vision features: as recorded, `live` from the chart model, `late` (after the wait), or none."),
    ] = Vision.RECORDED,
    intervals: Annotated[
        str, typer.Option(help="Intervals in the prompt, fastest first; the first is 1d, the slower ones are built from it.")
    ] = "1d,1w",
    window: Annotated[int, typer.Option(min=2, help="Bars in a prompt at the start of an epoch.")] = 256,
    epoch: Annotated[int, typer.Option(min=1, help="Bars from one epoch to the next; fewer than --window.")] = 64,
    permits: Annotated[int, typer.Option(min=1, help="Calls to the engine at once.")] = 5,
    min_gap_bars: Annotated[
        int, typer.Option(min=1, help="Trigger on every n-th bar at most, in event time: a weekend counts as two bars.")
    ] = 1,
    bus: Annotated[str, typer.Option(metavar="URL", help="`kafka://host:port`, or `memory://` inside this process.")] = "memory://",
    redis: Annotated[
        str, typer.Option(metavar="URL", help="`redis://host:port/db`, `memory://` inside this process, or `none://`.")
    ] = "memory://",
    engine: Annotated[
        str | None, typer.Option(metavar="URL", help="A running engine, `http://host:port`; there is no outage then.")
    ] = None,
    time_scale: Annotated[
        float, typer.Option(min=0, help="Speed of the simulator: 2 takes twice as long as the measured GPU, 0 answers at once.")
    ] = 1.0,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting, such as `fusion.trigger_on_vision=true`; repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the simulator and of the charts' delays.")] = 0,
    strategy: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Decide by this strategy, which `aquiline strategy new` makes, and publish its features."),
    ] = None,
    console: Annotated[bool, typer.Option(help="Serve the console, the live page, on what is played.")] = True,
    verbose: Annotated[bool, typer.Option("--verbose", help="Write log lines from `info` on instead of errors only.")] = False,
) -> None:
    """Play real stocks through the services that also run against Kafka and a GPU, and show every signal.

    The demo needs no broker, no Redis and no GPU: the bus is inside this process. In its **first act** a real language model of 135
    million parameters decides, on this machine's CPU: it never learned to trade, so its signals show the way from bar to signal and no
    skill. In its **second act** a simulator stands in for an engine on a GPU and shows load, a burst, an outage and the recovery: it has
    a real prefix cache and the timing of a GPU that was measured, and its answers come from fixed rules. The demo ends by itself after
    some two minutes and writes `demo-report.json`, `demo-signals.jsonl`, `demo-audit.jsonl` and the log that it played,
    `demo-log.jsonl.gz`, to the working directory; `aquiline replay --verify demo-audit.jsonl` checks the audit against the log. Exit
    status: 0, or 1 when a closing check fails. Ctrl-C publishes no more bars, drains and reports.

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
    options = Options(**locals() | {"assignments": tuple(assignments or ())})
    typer.echo("aquiline demo: loading; this takes a few seconds.")
    # These imports take two seconds, which `--help` does not need.
    from services.core import logs  # noqa: PLC0415
    from services.demo.run import run_demo  # noqa: PLC0415
    from services.demo.screen import Screen, make_console  # noqa: PLC0415
    from services.demo.setup import set_up  # noqa: PLC0415
    from services.inference.child_server import ServerStartError  # noqa: PLC0415

    run = set_up(options, Path.cwd())
    try:
        with Screen(make_console()) as screen:
            # Inside this context, rich writes what goes to standard error above the panel.
            logs.configure(run.acts[-1].settings.log, service="demo")
            code = asyncio.run(run_demo(run, screen))
    except ServerStartError as error:
        typer.echo(f"aquiline demo: {error}", err=True)
        raise typer.Exit(1) from error
    raise typer.Exit(code)
