"""`aquiline replay`: rebuilds the prompts of past decisions from the log."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from services.cli.options import AuditedSinceOption, AuditedUntilOption, epoch_ms
from services.core.bus.topic_reader import TOPIC

app = typer.Typer(rich_markup_mode="markdown")

LogOption = Annotated[
    str | None,
    typer.Option(
        metavar="LOG",
        help="The log: a file that `aquiline replay export`, the demo or a backtest wrote, or `topic` for the topics. [default: for "
        "`NAME-audit.jsonl` the file `NAME-log.jsonl.gz` beside it, for `topic` the topics]",
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Settings file of the workers that decided. An exported log contains them."),
]


@app.callback(invoke_without_command=True)
def replay(
    context: typer.Context,
    *,
    verify: Annotated[
        str | None,
        typer.Option(metavar="AUDIT", help="Rebuild every prompt of this audit trail and compare its hash: a JSONL file, or `topic`."),
    ] = None,
    audit: Annotated[
        str, typer.Option(metavar="AUDIT", help="Audit trail that `--show` and `--ask` read: a JSONL file, or `topic`.")
    ] = TOPIC,
    show: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Show one decision with its prompt. ID is its trigger_id or signal_id, or the beginning of one."),
    ] = None,
    ask: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Ask this engine again and show how its answers differ, for the decision of `--show` or the last ones."
        ),
    ] = None,
    last: Annotated[int, typer.Option(min=1, help="Number of decisions that `--ask` asks again.")] = 20,
    log: LogOption = None,
    signals: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Signals that `--verify` compares with an audit file. [default: `NAME-signals.jsonl` beside `NAME-audit.jsonl`]",
        ),
    ] = None,
    since: AuditedSinceOption = None,
    until: AuditedUntilOption = None,
    config: ConfigOption = None,
) -> None:
    """Rebuild the prompts of past decisions from the log: verify them against the audit, show one, or ask an engine again.

    A prompt is a pure function of the log: symbol, interval, mode, as-of and configuration version give the same token ids on any
    machine, as long as the log is kept.

    **Verify a demo.** Every prompt is rebuilt and its hash compared, and the audit is compared with the signals that were published. Each
    difference and each damaged record is named; the exit status is 1 unless all match:

        aquiline replay --verify demo-audit.jsonl

    **Verify a day of a worker on Kafka, with its settings:**

        aquiline replay --verify topic --since 2026-11-26 --until 2026-11-27 --config aquiline.toml

    **Show one decision with the prompt that the model saw:**

        aquiline replay --audit demo-audit.jsonl --show 4429f65c

    **Ask another engine** (an OpenAI-compatible one needs `engine.kind = "openai"` in `--config`):

        aquiline replay --audit demo-audit.jsonl --ask http://127.0.0.1:30000 --last 50
    """
    if context.invoked_subcommand is not None:
        return
    if verify is None and show is None and ask is None:
        typer.echo(context.get_help())
        raise typer.Exit
    # Imports take a second, which `--help` need not wait for.
    from services.replay.replay_command import Source, ask_command, show_command, verify_command  # noqa: PLC0415

    source = Source(verify or audit, log, epoch_ms(since), epoch_ms(until), config, signals)
    if verify is not None:
        raise typer.Exit(0 if asyncio.run(verify_command(source)) else 1)
    if ask is not None:
        asyncio.run(ask_command(source, ask, show, last))
    elif show is not None:
        raise typer.Exit(0 if asyncio.run(show_command(source, show)) else 1)


@app.command("export")
def export(
    name: Annotated[str, typer.Argument(help="Name of the files: NAME-audit.jsonl, NAME-signals.jsonl and NAME-log.jsonl.gz.")],
    *,
    since: AuditedSinceOption = None,
    until: AuditedUntilOption = None,
    config: ConfigOption = None,
) -> None:
    """Write a time range of the audit topic, its signals, and the part of the log that its decisions used, to three files.

    The log reaches back as far as the prompts do, and contains the settings that shape prompts: `aquiline replay --verify
    NAME-audit.jsonl` needs nothing else.

        aquiline replay export monday --since 2026-11-23 --until 2026-11-24 --config aquiline.toml
    """
    from services.replay.replay_command import Source, export_command  # noqa: PLC0415

    asyncio.run(export_command(Source(TOPIC, TOPIC, epoch_ms(since), epoch_ms(until), config), name))
