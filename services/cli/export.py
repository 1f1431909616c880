"""`aquiline export`: past decisions as data for other tools."""

from __future__ import annotations

import asyncio
import datetime as dt
from pathlib import Path
from typing import Annotated

import typer

from schemas import interval_ms
from services.cli.options import TIME, AuditedSinceOption, AuditedUntilOption, ConfigOption, epoch_ms
from services.core.bus.topic_reader import TOPIC

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="Write past decisions as data for other tools.")


@app.callback()
def export() -> None:
    """Write past decisions as data for other tools."""


@app.command()
def training(
    folder: Annotated[Path, typer.Argument(help="Folder for the files.")],
    *,
    audit: Annotated[str, typer.Option(metavar="AUDIT", help="Audit trail: a JSONL file, or `topic`.")] = TOPIC,
    log: Annotated[
        str | None,
        typer.Option(
            metavar="LOG",
            help="The log that prompts are rebuilt from, a file or `topic`. [default: for `NAME-audit.jsonl` the file `NAME-log.jsonl.gz` "
            "beside it, for `topic` the topics]",
        ),
    ] = None,
    outcomes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Outcomes. [default: `NAME-outcomes.jsonl` beside `NAME-audit.jsonl`, for `topic` the scorer's topic]"
        ),
    ] = None,
    other: Annotated[
        list[Path] | None,
        typer.Option(metavar="AUDIT", help="Another audit file whose answers to the same prompts make pairs. Repeatable."),
    ] = None,
    test_share: Annotated[
        float, typer.Option(min=0.01, max=0.9, help="Share of the samples, the latest ones, that are for testing.")
    ] = 0.2,
    test_from: Annotated[
        dt.datetime | None,
        typer.Option(formats=TIME, metavar="TIME", help="Test on decisions from this market time on (UTC), instead of a share."),
    ] = None,
    embargo: Annotated[
        str, typer.Option(help="Time before the test in which no training outcome may end: `4h`, `1d`, `1w`.", metavar="LENGTH")
    ] = "1d",
    min_difference_bps: Annotated[
        float, typer.Option(min=0, help="Least difference of the net returns of a pair, in basis points.", metavar="BPS")
    ] = 5.0,
    since: AuditedSinceOption = None,
    until: AuditedUntilOption = None,
    config: ConfigOption = None,
) -> None:
    """Write prompts, answers and outcomes of past decisions as training data.

    Every prompt is rebuilt from the log and must have the hash in the audit. The folder gets, each for `train` and `test`:

    - `plain-*.jsonl`: prompt, answer, outcome and origin of every published decision;
    - `sharegpt-*.jsonl`: the same in LLaMA-Factory's ShareGPT format, for supervised fine-tuning;
    - `dpo-*.jsonl`: pairs of a better and a worse answer to one prompt, in its preference format;
    - `dataset_info.json`: the description of these data sets for LLaMA-Factory.

    A pair's other answer is one from `--other` to the same prompt, else the choice to hold, whose return is 0. The split is by time: a
    decision is for training only when its outcome was known, by the embargo, before the first test decision.

    **From a backtest:**

        aquiline export training data/ --audit backtest/audit.jsonl

    **Two models on the same bars, their better answers preferred:**

        aquiline export training data/ --audit a/audit.jsonl --other b/audit.jsonl
    """
    try:
        embargo_ms = interval_ms(embargo)
    except ValueError:
        raise typer.BadParameter(f"{embargo!r} is not a length of time such as 4h, 1d or 1w", param_hint="--embargo") from None
    # `--help` does not wait for these imports.
    from services.replay.replay_command import Source  # noqa: PLC0415
    from services.replay.training_command import TrainingRequest, export_training  # noqa: PLC0415

    request = TrainingRequest(
        source=Source(audit, log, epoch_ms(since), epoch_ms(until), config),
        outcomes=outcomes,
        others=tuple(other or ()),
        folder=folder,
        test_from_ms=epoch_ms(test_from),
        test_share=test_share,
        embargo_ms=embargo_ms,
        min_difference=min_difference_bps / 1e4,
    )
    asyncio.run(export_training(request))
