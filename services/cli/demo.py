"""The demo's command line."""

from __future__ import annotations

import asyncio
import datetime as dt
from pathlib import Path
from typing import Annotated, Final

import typer

from services.demo.options import Options, Vision

app = typer.Typer(rich_markup_mode="markdown", help="Show Aquiline at work, on real market data and a simulated engine.")

_HISTORY_FROM: Final = "2009-01-01"
_DAY: Final = ["%Y-%m-%d"]


@app.command()
def demo(
    *,
    symbols: Annotated[str, typer.Option(help="Which of AAPL, FB, GOOG, IBM, MSFT, separated by commas.")] = "AAPL,FB,GOOG,IBM,MSFT",
    bars: Annotated[int, typer.Option(min=1, help="Bars a symbol in the paced part.")] = 80,
    pace: Annotated[float, typer.Option(min=0.01, help="Bars a second a symbol.")] = 1.5,
    start: Annotated[
        dt.datetime | None,
        typer.Option(formats=_DAY, metavar="DATE", help="First day of the paced part; as late as the data allow when not given."),
    ] = None,
    history_from: Annotated[
        dt.datetime,
        typer.Option(
            formats=_DAY,
            metavar="DATE",
            show_default=_HISTORY_FROM,
            help="Bars before the start are loaded from this day on; the data begin in March 2000.",
        ),
    ] = dt.datetime.fromisoformat(_HISTORY_FROM),
    burst: Annotated[bool, typer.Option(help="Ten seconds at ten times the pace.")] = True,
    outage: Annotated[bool, typer.Option(help="Three seconds without an engine, then a recovery.")] = True,
    vision: Annotated[
        Vision,
        typer.Option(help="Vision features: as recorded, `live` from the chart network (needs torch), `late` beyond the wait, or none."),
    ] = Vision.RECORDED,
    intervals: Annotated[
        str, typer.Option(help="Intervals in the prompt, fastest first: it must be 1d, the slower ones are built from it.")
    ] = "1d,1w",
    window: Annotated[int, typer.Option(min=2, help="W: bars in a prompt at the start of an epoch.")] = 256,
    epoch: Annotated[int, typer.Option(min=1, help="K: slots from one epoch to the next; below W.")] = 64,
    permits: Annotated[int, typer.Option(min=1, help="Calls to the engine at once.")] = 5,
    min_gap_bars: Annotated[
        int, typer.Option(min=1, help="Ask at most on every n-th bar, in event time: a weekend counts as two bars.")
    ] = 1,
    bus: Annotated[str, typer.Option(metavar="URL", help="`kafka://host:port`, or `memory://` inside this process.")] = "memory://",
    redis: Annotated[
        str, typer.Option(metavar="URL", help="`redis://host:port/db`, `memory://` inside this process, or `none://`.")
    ] = "memory://",
    engine: Annotated[
        str | None, typer.Option(metavar="URL", help="An engine that runs already, `http://host:port`; the outage is left out then.")
    ] = None,
    time_scale: Annotated[
        float, typer.Option(min=0, help="The simulator's time: 2 is half as fast as the GPU that was measured, 0 waits for nothing.")
    ] = 1.0,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting, such as `fusion.trigger_on_vision=true`; may be repeated."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the simulator's draws and of the charts' delays.")] = 0,
    verbose: Annotated[bool, typer.Option("--verbose", help="Write every log line, not only warnings.")] = False,
) -> None:
    """Show Aquiline at work: five real stocks, played through the same services that run against Kafka and a GPU.

    It needs no broker, no Redis and no GPU: the bus lives in this process, and a **simulator** stands in for the engine, with a real
    prefix cache and the times of a GPU that was measured. Its answers come from fixed rules. It ends by itself after some 75 seconds
    and leaves `demo-report.json`, `demo-signals.jsonl`, `demo-audit.jsonl` and the log it played, `demo-log.jsonl.gz`, in the working
    directory; `aquiline replay --verify demo-audit.jsonl` checks one against the other. Exit status: 0, or 1 when a
    closing sum is off. Ctrl-C drains and reports.

    **An engine that is too slow for its bars, and nothing else:**

        aquiline demo --permits 1 --no-burst --no-outage

    **Through real parts** (`make up-local` starts them and prints their addresses; the topics of `demo.` are emptied first):

        aquiline demo --bus kafka://127.0.0.1:9092 --redis redis://127.0.0.1:6379/0 --engine http://127.0.0.1:30000

    **Another trigger policy:** ask when charts come too, and at most on every second bar:

        aquiline demo --set fusion.trigger_on_vision=true --min-gap-bars 2
    """
    options = Options(
        symbols=symbols,
        bars=bars,
        pace=pace,
        start=start.date() if start else None,
        history_from=history_from.date(),
        burst=burst,
        outage=outage,
        vision=vision,
        intervals=intervals,
        window=window,
        epoch=epoch,
        permits=permits,
        min_gap_bars=min_gap_bars,
        bus=bus,
        redis=redis,
        engine=engine,
        time_scale=time_scale,
        assignments=tuple(assignments or ()),
        seed=seed,
        verbose=verbose,
    )
    typer.echo("aquiline demo: loading; this takes some seconds.")
    # Imports take two seconds, which `--help` need not wait for.
    from services.demo.engine import EngineStartError  # noqa: PLC0415
    from services.demo.prepare import prepare  # noqa: PLC0415
    from services.demo.run import show  # noqa: PLC0415

    run, console, log_lines = prepare(options, Path.cwd())
    try:
        code = asyncio.run(show(run, console, log_lines))
    except EngineStartError as error:
        typer.echo(f"aquiline demo: {error}", err=True)
        raise typer.Exit(1) from error
    raise typer.Exit(code)
