"""`aquiline calibrate`: fit what the model says to what happened."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from services.cli.options import BusOption, ConfigOption, EndedSinceOption, EndedUntilOption, OutcomesOption, epoch_ms

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="Fit the probabilities of mode `flash` to outcomes.")


@app.callback()
def calibrate() -> None:
    """Fit the probabilities of mode `flash` to outcomes."""


@app.command()
def signals(
    *,
    outcomes: OutcomesOption = None,
    since: EndedSinceOption = None,
    until: EndedUntilOption = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Also draw the reliability as SVG (needs the extra `report`).")] = None,
    bus: BusOption = None,
    config: ConfigOption = None,
) -> None:
    """Fit a temperature on the outcomes of signals that carry probabilities, and show how reliable they are before and after.

    The temperature is fitted on the first 70 % of the completed positions of mode `flash` and shown on the others: log loss, Brier score,
    and how often positions gained for each tenth of probability. It takes at least 100 of them. Nothing is changed: the last line says
    what to set.

        aquiline calibrate signals --config aquiline.toml --since 2026-10-01 --plot reliability.svg

        aquiline calibrate signals --outcomes backtest/outcomes.jsonl
    """
    # Imports take a second, which `--help` need not wait for.
    from services.scoring.report.calibrate_command import CalibrateRequest, run  # noqa: PLC0415

    if outcomes is not None and bus is not None:
        raise typer.BadParameter("--outcomes reads a file and --bus reads a topic; give one of them")
    asyncio.run(run(CalibrateRequest(outcomes, epoch_ms(since), epoch_ms(until), plot, bus, config)))
