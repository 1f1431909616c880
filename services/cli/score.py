"""`aquiline score report`: the report on the results of the signals."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from services.cli.options import BusOption, ConfigOption, EndedSinceOption, EndedUntilOption, OutcomesOption, epoch_ms

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="Report on the results of the signals.")


@app.callback()
def score() -> None:
    """Report on the results of the signals."""


@app.command()
def report(
    *,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Also write the report as one HTML file with charts (needs the extra `report`)."),
    ] = None,
    since: EndedSinceOption = None,
    until: EndedUntilOption = None,
    symbol: Annotated[list[str] | None, typer.Option(metavar="SYMBOL", help="Only this symbol. Repeatable.")] = None,
    outcomes: OutcomesOption = None,
    bars: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="With `--outcomes`: closed bars, `MarketFeatures` or `Candle` messages, or a log that `aquiline replay export`, the demo "
            "or a backtest wrote, which includes instruments, splits and dividends. Repeatable.",
        ),
    ] = None,
    splits: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="With `--outcomes`: `InstrumentEvent` and `Dividend` messages, needed where bars span them. Dividends count only for "
            "instruments of a log in `--bars` whose `returns` are `total`.",
        ),
    ] = None,
    signals: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With `--outcomes`: `Signal` messages, which name engine and model in the report.")
    ] = None,
    cost_bps: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="BPS",
            help="Cost of one side of a trade for the baselines, in basis points. [default: `scoring.cost_bps` + `scoring.slippage_bps`]",
        ),
    ] = None,
    bus: BusOption = None,
    config: ConfigOption = None,
) -> None:
    """Report equity, hit rate, expectancy and conviction of the signals, each beside what a trader without skill makes.

    The verdict compares the signals with 2,000 random traders that have the same habits. It claims skill only where that comparison,
    the intervals and the number of trades support it. `docs/report.md` defines every figure.

    **Everything that the scorer has judged, from the topics of the settings' run mode:**

        aquiline score report --config aquiline.toml --out report.html

    **One symbol, one month:**

        aquiline score report --config aquiline.toml --since 2026-10-01 --until 2026-11-01 --symbol AAPL.XNAS

    **From files, without a broker:**

        aquiline score report --outcomes outcomes.jsonl --bars features.jsonl --out report.html
    """
    # Imports take a second, which `--help` need not wait for.
    from services.scoring.report.report_command import Files, ReportRequest, run  # noqa: PLC0415

    if outcomes is None and (bars or splits or signals):
        raise typer.BadParameter("--bars, --splits and --signals need --outcomes; without it everything is read from the topics")
    if outcomes is not None and bus is not None:
        raise typer.BadParameter("--outcomes reads files and --bus reads topics; give one of them")
    files = None if outcomes is None else Files(outcomes, tuple(bars or ()), splits, signals)
    asyncio.run(run(ReportRequest(epoch_ms(since), epoch_ms(until), frozenset(symbol or ()), cost_bps, out, bus, config), files))
