"""The command line of `aquiline score`."""

from __future__ import annotations

import asyncio
import datetime as dt
from pathlib import Path
from typing import Annotated, Final

import typer

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="Say whether the signals were any good.")

_TIMES: Final = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]


@app.callback()
def score() -> None:
    """Say whether the signals were any good."""


@app.command()
def report(
    *,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write the report as one HTML file too, with pictures (extra `report`)."),
    ] = None,
    since: Annotated[
        dt.datetime | None,
        typer.Option(formats=_TIMES, metavar="TIME", help="Only signals that ended then or later, in market time (UTC)."),
    ] = None,
    until: Annotated[
        dt.datetime | None, typer.Option(formats=_TIMES, metavar="TIME", help="Only those that ended before, in market time (UTC).")
    ] = None,
    symbol: Annotated[list[str] | None, typer.Option(metavar="SYMBOL", help="Only this symbol; may be given several times.")] = None,
    outcomes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Outcomes from a file instead of the topic: `SignalOutcome` messages, one a line (`.jsonl`, `.gz`).",
        ),
    ] = None,
    bars: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="With `--outcomes`: closed bars, `MarketFeatures` or `Candle` messages, or a log that `aquiline replay export`, the demo "
            "or a backtest wrote (splits come with it); may be given several times.",
        ),
    ] = None,
    splits: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With `--outcomes`: `InstrumentEvent` messages, where bars cross splits.")
    ] = None,
    signals: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With `--outcomes`: `Signal` messages, to name engine and model in the head.")
    ] = None,
    cost_bps: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="BPS",
            help="What a side of a trade costs the baselines, in basis points; `scoring.cost_bps` and `scoring.slippage_bps` together when "
            "not given.",
        ),
    ] = None,
    bus: Annotated[str | None, typer.Option(metavar="URL", help="`kafka://host:port`, instead of the settings' `bus.url`.")] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Settings file; else AQUILINE_CONFIG and AQUILINE_* variables.")
    ] = None,
) -> None:
    """Report on what became of the signals: equity, hit rate, expectancy, conviction, each beside what no skill would have made.

    It says in a sentence where the signals lie among 2,000 random traders with the same habits, and claims skill only where that,
    the intervals and the number of trades allow it. `docs/report.md` has every definition.

    **All that the scorer has judged, from the topics of the settings' run mode:**

        aquiline score report --config aquiline.toml --out report.html

    **A month, one symbol:**

        aquiline score report --config aquiline.toml --since 2026-10-01 --until 2026-11-01 --symbol AAPL.XNAS

    **From files, with nothing running:**

        aquiline score report --outcomes outcomes.jsonl --bars features.jsonl --out report.html
    """
    # Imports take a second, which `--help` need not wait for.
    from services.scoring.report.report_command import Files, ReportRequest, run  # noqa: PLC0415

    if outcomes is None and (bars or splits or signals):
        raise typer.BadParameter("--bars, --splits and --signals go with --outcomes; without it everything is read from the topics")
    if outcomes is not None and bus is not None:
        raise typer.BadParameter("--outcomes reads files and --bus topics; give one of them")
    files = None if outcomes is None else Files(outcomes, tuple(bars or ()), splits, signals)
    asyncio.run(run(ReportRequest(_ms(since), _ms(until), frozenset(symbol or ()), cost_bps, out, bus, config), files))


def _ms(time: dt.datetime | None) -> int | None:
    return None if time is None else round(time.replace(tzinfo=dt.UTC).timestamp() * 1_000)
