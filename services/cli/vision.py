"""`aquiline vision`: draw a chart, train the chart network, judge it, and record what the demo plays.

Only `train` imports torch, and only once it runs.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer

from schemas import RunMode
from services.cli.options import TIME
from services.feeds.samples import load_instruments, load_splits, load_stocks
from services.vision.forecaster import ForecasterError
from services.vision.loading import SHIPPED_WEIGHTS, load_forecaster
from services.vision.recorded import RECORDED_FILE, save_recorded
from services.vision.render import ChartSpec
from services.vision.skill import training_log_of

app = typer.Typer(name="vision", help="Chart images and the chart network.", no_args_is_help=True)

_CARD: Final = Path("docs/vision-model-card.md")
_PLOT: Final = Path("docs/img/vision-calibration.png")


@app.command("render")
def render_chart(
    *,
    symbol: Annotated[str, typer.Option(help="One of the shipped stocks: AAPL, FB, GOOG, IBM, MSFT.")],
    out: Annotated[Path, typer.Option(help="PNG file to write.")],
    until: Annotated[dt.datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Last day; the series' last when absent.")] = None,
    bars: Annotated[int, typer.Option(help="Bars in the image: 5, 20 or 60.")] = 20,
    scale: Annotated[int, typer.Option(min=1, max=40, help="Screen pixels for each of the image's.")] = 10,
    moving_average: Annotated[bool, typer.Option(help="Draw the moving average.")] = True,
    volume: Annotated[bool, typer.Option(help="Draw the volume.")] = True,
    detections: Annotated[bool, typer.Option("--detections", help="Draw the patterns that were found.")] = False,
) -> None:
    """Draw a chart of real daily bars as the network sees it, enlarged."""
    from services.vision.draw_chart import draw_chart  # noqa: PLC0415 - reads calendars

    stocks, splits = load_stocks(RunMode.DEMO), load_splits(RunMode.DEMO)
    try:
        spec = ChartSpec(bars=bars, moving_average=moving_average, volume=volume)  # type: ignore[arg-type]
        drawn = draw_chart(stocks, splits, spec, symbol, until, scale=scale, show_patterns=detections)
    except ValueError as error:
        _fail(str(error))
    drawn.image.save(out, "PNG")
    typer.echo(f"{out}: {drawn.title}, hash {drawn.hash}")
    for pattern in drawn.patterns:
        typer.echo(f"  {pattern.label} {pattern.score:.3f} bars {pattern.first_bar} to {pattern.last_bar}")


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="Weights file to write; its training log is written beside it.")] = SHIPPED_WEIGHTS,
    seed: Annotated[int, typer.Option(help="Seed; the same one gives the same weights.")] = 1,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training windows at most.")] = 20,
    every: Annotated[int, typer.Option(min=1, help="Learn from every n-th training window: for a quick check.")] = 1,
) -> None:
    """Train the chart network on the real daily bars, some five minutes on one CPU core."""
    import numpy as np  # noqa: PLC0415

    from services.vision.training_series import MissingDataError, training_parts  # noqa: PLC0415

    try:
        from services.vision import training  # noqa: PLC0415 - torch

        parts, _ = training_parts(load_stocks(RunMode.DEMO), load_splits(RunMode.DEMO))
    except MissingDataError as error:
        _fail(str(error))
    except ModuleNotFoundError as error:
        _fail(f"{error.name} is not installed; training needs: pip install 'aquiline[vision,vision-train]'")
    learned = parts.train.where(np.arange(len(parts.train)) % every == 0)
    typer.echo(f"train {len(learned)} windows, validation {len(parts.validation)}; the {len(parts.test)} of the test are not used")
    trained = training.train(
        learned,
        parts.validation,
        training.Plan(seed=seed, epochs=epochs),
        lambda epoch: typer.echo(f"epoch {epoch.number}: train {epoch.train_loss:.4f}, validation {epoch.validation_loss:.4f} nats"),
    )
    out.write_bytes(trained.data)
    training_log_of(out).write_text(json.dumps(asdict(trained.facts), indent=1) + "\n")
    typer.echo(f"{out}: {len(trained.data)} bytes, epoch {trained.facts.best_epoch}, sha256 {trained.facts.sha256}")


@app.command()
def evaluate(
    weights: Annotated[Path, typer.Option(help="Weights file to evaluate.")] = SHIPPED_WEIGHTS,
    card: Annotated[Path, typer.Option(help="Model card to write.")] = _CARD,
    plot: Annotated[Path, typer.Option(help="Calibration plot to write.")] = _PLOT,
) -> None:
    """Evaluate the network out of sample beside its baselines; write the model card, its plot, and the evaluation beside the weights."""
    from services.vision.evaluate_weights import evaluate_weights  # noqa: PLC0415
    from services.vision.training_series import MissingDataError  # noqa: PLC0415

    try:
        lines = evaluate_weights(load_stocks(RunMode.DEMO), load_splits(RunMode.DEMO), weights, card, plot)
    except (ForecasterError, MissingDataError) as error:
        _fail(str(error))
    except ModuleNotFoundError as error:
        _fail(f"{error.name} is not installed; the evaluation needs: pip install 'aquiline[vision-train]'")
    for line in lines:
        typer.echo(line)


@app.command()
def record(
    out: Annotated[Path, typer.Option(help="File to write.")] = RECORDED_FILE,
    weights: Annotated[Path, typer.Option(help="Weights file of the network to use.")] = SHIPPED_WEIGHTS,
    since: Annotated[
        dt.datetime | None,
        typer.Option(
            formats=TIME, metavar="TIME", help="Record from this time on (UTC); by default from 2012, which the network did not see."
        ),
    ] = None,
) -> None:
    """Record what the service publishes for the demo's bars, which the demo plays by default."""
    from services.vision.record_features import RECORD_FROM  # noqa: PLC0415 - imports the service
    from services.vision.record_features import record as run_service  # noqa: PLC0415

    try:
        forecaster = load_forecaster(weights)
    except ForecasterError as error:
        _fail(str(error))
    reference = load_instruments(RunMode.DEMO), load_splits(RunMode.DEMO)
    begin = RECORD_FROM if since is None else since.replace(tzinfo=dt.UTC)
    recorded = asyncio.run(run_service(forecaster, *reference, load_stocks(RunMode.DEMO), begin))
    save_recorded(recorded, out)
    typer.echo(f"{out}: {len(recorded)} windows, {out.stat().st_size} bytes, by {forecaster.detector.name} {forecaster.detector.version}")


def _fail(sentence: str) -> NoReturn:
    typer.echo(f"aquiline vision: {sentence}", err=True)
    raise typer.Exit(1)
