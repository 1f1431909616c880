"""`aquiline backtest`: runs the worker on historical data."""

from __future__ import annotations

import asyncio
import datetime as dt
from pathlib import Path
from typing import Annotated

import typer

from services.backtest.request import DEMO, NONE, RECORDED, RULES, SIMULATOR, BacktestRequest
from services.cli.candle_file_options import EXTENDED_HELP, STAMP_HELP, SYMBOL_HELP, TIME_ZONE_HELP, Stamp
from services.cli.options import TIME, ConfigOption, SetOption, epoch_ms

app = typer.Typer(rich_markup_mode="markdown")


@app.command()
def backtest(
    *,
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DATA",
            help="`demo` (five real stocks, daily, 2000 to 2013); a candle file, CSV or Parquet, in any layout of docs/feeds.md "
            "(repeatable); a log that `aquiline replay export` or the demo wrote (`.jsonl.gz`); or `topic` for the topics of the "
            "settings' bus.",
        ),
    ] = None,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the report to this self-contained HTML file.")] = None,
    folder: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the run's files and its checkpoint.")] = Path("backtest"),
    resume: Annotated[bool, typer.Option("--resume", help="Continue the unfinished run in the folder, with its options.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Discard an unfinished run in the folder and start again.")] = False,
    since: Annotated[
        dt.datetime | None,
        typer.Option(formats=TIME, metavar="TIME", help="Decide from this time on (UTC); in a log, append time."),
    ] = None,
    until: Annotated[dt.datetime | None, typer.Option(formats=TIME, metavar="TIME", help="End at this time (UTC).")] = None,
    engine: Annotated[
        str,
        typer.Option(
            metavar="ENGINE", help=f"`{SIMULATOR}` or `{RULES}`, both in this process, or the address of an engine, `http://host:port`."
        ),
    ] = SIMULATOR,
    blind: Annotated[
        bool,
        typer.Option("--blind", help="Run a second time with symbol, price level and dates hidden from the model, and report on both."),
    ] = False,
    vision: Annotated[
        str | None,
        typer.Option(
            metavar="VISION",
            help=f"Vision features: `{RECORDED}` (for the demo's stocks, from 2012 on), a file that `aquiline vision record` wrote, "
            f"or `{NONE}`.",
            show_default=f"{RECORDED} with --data {DEMO}, else {NONE}",
        ),
    ] = None,
    notes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Notes to play with candles: a JSON object a line, with `symbol`, `source`, `ts_ms` and `text` (docs/inputs.md). A log "
            "has its own.",
        ),
    ] = None,
    intervals: Annotated[
        str | None, typer.Option(help="Intervals in the prompt, fastest first. Slower ones that the data lack are built from the first.")
    ] = None,
    symbol: Annotated[str | None, typer.Option(help=SYMBOL_HELP)] = None,
    interval: Annotated[str | None, typer.Option(help="Interval of the bars (`1m`, `1d`), for files without an interval column.")] = None,
    calendar: Annotated[str, typer.Option(help="`24x7`, or an exchange calendar such as `XNYS`.")] = "24x7",
    price_increment: Annotated[str | None, typer.Option(help="Tick size.", show_default="the tick that the prices are on")] = None,
    currency: Annotated[str, typer.Option(help="Currency of the prices.")] = "USD",
    price_adjustment: Annotated[str, typer.Option(help="Adjustment of the prices: `none`, `split`, `split_dividend`.")] = "split",
    time_zone: Annotated[str | None, typer.Option(metavar="ZONE", help=TIME_ZONE_HELP)] = None,
    stamp: Annotated[Stamp, typer.Option(help=STAMP_HELP)] = Stamp.OPEN,
    extended: Annotated[bool, typer.Option("--extended", help=EXTENDED_HELP)] = False,
    assignments: SetOption = None,
    config: ConfigOption = None,
) -> None:
    """Run the fusion worker on historical data with a virtual clock, and report what its signals would have made.

    The worker is the one that runs on Kafka: books, triggers, lanes, prompts, guard. Each decision is made at the end of its bar, and the
    clock stops while the engine answers. The scorer's own rules judge the signals: a position opens in the **next** bar, at its open
    unless that is worse than `entry`, and pays costs and slippage (`scoring.cost_bps`, `scoring.slippage_bps`).

    **The data that ship with Aquiline** (the simulator answers from fixed rules, so expect no skill):

        aquiline backtest --data demo --report backtest.html

    **Your own bars, your own engine:**

        aquiline backtest --data btc.parquet --symbol BTC-USD.CBSE --interval 1m --engine http://127.0.0.1:30000 --report btc.html

    **A language model may have read about the past.** Compare its decisions with those it makes when it cannot recognise the data:

        aquiline backtest --data demo --engine http://127.0.0.1:30000 --blind --report backtest.html

    **Ctrl-C** stops between two bars and keeps the run, which can continue later:

        aquiline backtest --resume --report backtest.html
    """
    # `--help` does not wait for these imports, which take two seconds.
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
        since_ms=epoch_ms(since),
        until_ms=epoch_ms(until),
        engine=engine,
        assignments=tuple(assignments or ()),
        config=None if config is None else str(config),
        blind=blind,
        time_zone=time_zone,
        stamp=stamp.value,
        extended=extended,
        notes=None if notes is None else str(notes),
    )
    raise typer.Exit(asyncio.run(begin(options, folder, report, resume=resume, restart=restart)))
