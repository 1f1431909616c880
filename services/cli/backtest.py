"""The command line of `aquiline backtest`."""

from __future__ import annotations

import asyncio
import datetime as dt
from pathlib import Path
from typing import Annotated, Final

import typer

from services.backtest.request import DEMO, NONE, RECORDED, RULES, SIMULATOR, BacktestRequest
from services.cli.reading import EXTENDED_HELP, STAMP_HELP, SYMBOL_HELP, TIME_ZONE_HELP, Stamp

app = typer.Typer(rich_markup_mode="markdown")

_TIMES: Final = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]


@app.command()
def backtest(
    *,
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DATA",
            help="`demo` (five real stocks, daily, 2000 to 2013); files of candles, CSV or Parquet, in any layout of docs/feeds.md "
            "(may be repeated); a log that `aquiline replay export` or the demo wrote, `.jsonl.gz`; or `topic` for the "
            "topics of the bus in the settings.",
        ),
    ] = None,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the report there as one self-contained HTML file.")] = None,
    folder: Annotated[Path, typer.Option(metavar="FOLDER", help="Where its files go, the checkpoint among them.")] = Path("backtest"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder, as it was begun.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Begin anew, giving up an unfinished run in the folder.")] = False,
    since: Annotated[
        dt.datetime | None,
        typer.Option(formats=_TIMES, metavar="TIME", help="Ask from then on (UTC); in a log, append time."),
    ] = None,
    until: Annotated[dt.datetime | None, typer.Option(formats=_TIMES, metavar="TIME", help="Play until then (UTC).")] = None,
    engine: Annotated[
        str,
        typer.Option(
            metavar="ENGINE", help=f"`{SIMULATOR}` or `{RULES}` in this process, or the address of a real one, `http://host:port`."
        ),
    ] = SIMULATOR,
    vision: Annotated[
        str | None,
        typer.Option(
            metavar="VISION",
            help=f"Vision features: `{RECORDED}` (those of the demo's stocks, from 2012 on), a file as `aquiline vision record` writes "
            f"it, or `{NONE}`.",
            show_default=f"{RECORDED} with --data {DEMO}, else {NONE}",
        ),
    ] = None,
    intervals: Annotated[
        str | None, typer.Option(help="Intervals in the prompt, fastest first; slower ones than the data have are built from the first.")
    ] = None,
    symbol: Annotated[str | None, typer.Option(help=SYMBOL_HELP)] = None,
    interval: Annotated[str | None, typer.Option(help="The bars' length (`1m`, `1d`), where no column says it.")] = None,
    calendar: Annotated[str, typer.Option(help="`24x7`, or an exchange calendar such as `XNYS`.")] = "24x7",
    price_increment: Annotated[str | None, typer.Option(help="The tick.", show_default="the one that the prices are on")] = None,
    currency: Annotated[str, typer.Option(help="Of the prices.")] = "USD",
    price_adjustment: Annotated[str, typer.Option(help="What prices are adjusted for: `none`, `split`, `split_dividend`.")] = "split",
    time_zone: Annotated[str | None, typer.Option(metavar="ZONE", help=TIME_ZONE_HELP)] = None,
    stamp: Annotated[Stamp, typer.Option(help=STAMP_HELP)] = Stamp.OPEN,
    extended: Annotated[bool, typer.Option("--extended", help=EXTENDED_HELP)] = False,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting, such as `scoring.cost_bps=5`; may be repeated."),
    ] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Settings file; else AQUILINE_CONFIG and variables.")] = None,
) -> None:
    """Play history to the fusion worker on a virtual clock, as fast as the engine answers, and report what its signals would have made.

    It is the worker that runs on Kafka, whole: books, triggers, lanes, prompts, guard. Each decision is made at the end of its bar, and the
    clock stands still while the engine answers. Signals are judged by the scorer's own rules: a position opens in the **next** bar, at its
    open where the price is not worse than `entry`, and pays costs and slippage (`scoring.cost_bps`, `scoring.slippage_bps`).

    **What ships with Aquiline** (the simulator's fixed rules answer: expect no skill):

        aquiline backtest --data demo --report backtest.html

    **Your own bars, your own engine:**

        aquiline backtest --data btc.parquet --symbol BTC-USD.CBSE --interval 1m --engine http://127.0.0.1:30000 --report btc.html

    **Ctrl-C** stops at the next instant at which nothing is under way, and keeps what is there:

        aquiline backtest --resume --report backtest.html
    """
    # Imports take two seconds, which `--help` need not wait for.
    from services.backtest.backtest_command import begin  # noqa: PLC0415

    names = tuple(data or (DEMO,))
    options = BacktestRequest(
        data=names,
        symbol=symbol,
        interval=interval,
        calendar=calendar,
        price_increment=price_increment,
        currency=currency,
        price_adjustment=price_adjustment,
        intervals=intervals,
        vision=vision or (RECORDED if names == (DEMO,) else NONE),
        since_ms=_ms(since),
        until_ms=_ms(until),
        engine=engine,
        assignments=tuple(assignments or ()),
        config=None if config is None else str(config),
        time_zone=time_zone,
        stamp=stamp.value,
        extended=extended,
    )
    raise typer.Exit(asyncio.run(begin(options, folder, report, resume=resume, restart=restart)))


def _ms(time: dt.datetime | None) -> int | None:
    return None if time is None else round(time.replace(tzinfo=dt.UTC).timestamp() * 1000)
