"""Writes the model card: an evaluation as a page of Markdown and a calibration plot."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from schemas import Detector
from services.vision.evaluation import BLOCK_DAYS, DRAWS, Evaluation, Judged
from services.vision.forecast_quality import Estimate


@dataclass(frozen=True, slots=True)
class SeriesFacts:
    """A series as the card lists it; `source` names where it comes from and its licence."""

    symbol: str
    bars: int
    first_ms: int
    last_ms: int
    splits: int
    source: str


@dataclass(frozen=True, slots=True)
class TrainingFacts:
    """How the weights were trained, as `aquiline vision train` recorded it."""

    seed: int
    epochs: list[tuple[int, float, float]]
    """Number, train loss and validation loss of each epoch."""
    best_epoch: int
    scale: float
    shift: float
    sha256: str
    bytes: int
    parameters: int


def markdown(evaluation: Evaluation, series: Sequence[SeriesFacts], training: TrainingFacts, detector: Detector, plot: str) -> str:
    """Return the card; `plot` is the path of the calibration plot as seen from it."""
    network = evaluation.models[0]
    test = evaluation.parts[-1]
    low, high = evaluation.p_up_range
    lines = [
        "# Model card: the chart network",
        "",
        (
            f"`{detector.name}`, version `{detector.version}`. Made by `aquiline vision train`; this page and its plot by "
            "`aquiline vision evaluate`. Do not edit it."
        ),
        "",
        "## In short",
        "",
        verdict(evaluation.models),
        f"Ninety per cent of its `p_up` on the test part lie between {low:.3f} and {high:.3f}.",
        "It is an example of a producer, to be replaced by your own model, and no ground to trade on.",
        "",
        "## Data",
        "",
        "Daily bars; prices and volumes adjusted for splits, not for dividends.",
        "",
        "| series | bars | from | until | splits | source |",
        "|---|---:|---|---|---:|---|",
        *(f"| {one.symbol} | {one.bars} | {_day(one.first_ms)} | {_day(one.last_ms)} | {one.splits} | {one.source} |" for one in series),
        "",
        (
            "A window is the image's 20 bars, the 19 before them that the moving average looks back on, and the 5 after them that decide "
            "the label: whether the fifth close after the window is higher than its last. A window with any of these on another side of "
            "a boundary is in no part, so that nothing of a later part is known to an earlier one."
        ),
        "",
        "| part | windows | first bar seen | last label decided | share up |",
        "|---|---:|---|---|---:|",
        *(f"| {one.name} | {one.windows} | {_day(one.from_ms)} | {_day(one.until_ms)} | {one.share_up:.3f} |" for one in evaluation.parts),
        "",
        (
            "The series overlap in time and move together: the stocks are in the indices. They were picked by somebody who knew that "
            "the companies had done well. No setting was chosen by looking at the test part."
        ),
        "",
        "## Model and training",
        "",
        (
            f"The network of Jiang, Kelly and Xiu (2023) for 64 by 60 images with a quarter of its channels (16, 32, 64), one logit, "
            f"{training.parameters:,} weights once batch norm is folded in; {training.bytes:,} bytes in half precision, which is what "
            "was evaluated. AdamW, learning rate 1e-4, weight decay 0.01, batches of 128, dropout of a half, Xavier initialization, "
            f"seed {training.seed}, on one CPU thread with deterministic algorithms. Stopped after three epochs without a lower "
            f"validation loss; the best was epoch {training.best_epoch}. The logit was then calibrated on the validation part "
            f"(Platt: times {training.scale:.4f}, plus {training.shift:.4f})."
        ),
        "",
        f"SHA-256 of the weights: `{training.sha256}`.",
        "",
        "| epoch | train loss (with dropout) | validation loss (before calibration) |",
        "|---:|---:|---:|",
        *(f"| {number} | {train:.4f} | {validation:.4f} |" for number, train, validation in training.epochs),
        "",
        "## Out of sample",
        "",
        (
            f"On the {test.windows} windows of the test part, in brackets the 95 % interval of a block bootstrap: {DRAWS:,} draws of "
            f"blocks of {BLOCK_DAYS} days with every symbol's windows of those days, as windows overlap and symbols move together."
        ),
        "",
        "| model | AUC | accuracy | log loss |",
        "|---|---|---|---|",
        *(_row(model) for model in evaluation.models),
        "",
        (
            f"`majority` always says the train part's share of ups. The logistic regression sees the numbers that the image draws "
            f"(ridge penalty {evaluation.logistic_penalty:g}, chosen on the validation part)."
        ),
        "",
        "| symbol | windows | AUC | accuracy |",
        "|---|---:|---:|---:|",
        *(f"| {symbol} | {count} | {auc:.3f} | {accuracy:.3f} |" for symbol, (count, auc, accuracy) in evaluation.by_symbol.items()),
        "",
        "## Calibration",
        "",
        f"![Share of windows that went up, by p_up]({plot})",
        "",
        "| p_up | went up | windows |",
        "|---:|---:|---:|",
        *(f"| {one.p_up:.3f} | {one.up:.3f} | {one.count} |" for one in network.bins),
        "",
    ]
    return "\n".join(lines)


def verdict(models: Sequence[Judged]) -> str:
    """Return a sentence on the network's AUC interval and the baselines' figures; `models` as in an evaluation, network first."""
    network, regression, majority = models
    figure = network.figures["AUC"]
    if figure.low > 0.5:  # noqa: PLR2004 - a coin's
        said = "tells windows that go up from others better than chance does"
    elif figure.high < 0.5:  # noqa: PLR2004
        said = "is wrong more often than chance about which windows go up"
    else:
        said = "cannot be told from chance"
    return (
        f"Out of sample the network {said}: AUC {_estimate(figure)}; a logistic regression on the same numbers has "
        f"{_estimate(regression.figures['AUC'])}. It is right in {network.figures['accuracy'].value:.1%} of windows; always saying "
        f"that the market goes up is right in {majority.figures['accuracy'].value:.1%}."
    )


def draw_calibration(evaluation: Evaluation, out: Path) -> None:
    """Write the calibration plot as a PNG; needs matplotlib, else raises ModuleNotFoundError."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - of the extra vision-train
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(5.5, 4.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for model, marker in zip(evaluation.models[:2], ("o", "s"), strict=True):
        axes.plot([one.p_up for one in model.bins], [one.up for one in model.bins], marker=marker, label=model.name)
    low, high = axes.get_xlim()
    axes.plot([low, high], [low, high], color="grey", linestyle="--", linewidth=1, label="perfect")
    axes.axhline(evaluation.parts[-1].share_up, color="grey", linestyle=":", linewidth=1, label="share up in the test part")
    axes.set_xlabel("p_up, in tenths of the test windows")
    axes.set_ylabel("share that went up")
    axes.set_title("Calibration on the test part")
    axes.legend(fontsize=8)
    figure.savefig(out, metadata={"Software": None})


def _row(model: Judged) -> str:
    return f"| {model.name} | " + " | ".join(_estimate(model.figures[name]) for name in ("AUC", "accuracy", "log loss")) + " |"


def _estimate(figure: Estimate) -> str:
    return f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"


def _day(at_ms: int) -> str:
    return dt.datetime.fromtimestamp(at_ms / 1000, tz=dt.UTC).date().isoformat()
