"""The command line of `aquiline replay`."""

from __future__ import annotations

import asyncio
import datetime as dt
from pathlib import Path
from typing import Annotated, Final

import typer

from services.core.bus.topic_reader import TOPIC

app = typer.Typer(rich_markup_mode="markdown")

_TIMES: Final = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]

LogOption = Annotated[
    str | None,
    typer.Option(
        metavar="LOG",
        help="The log: a file that `aquiline replay export` or `aquiline demo` wrote, or `topic` for the topics themselves. Not "
        "given: for `NAME-audit.jsonl` the file `NAME-log.jsonl.gz` beside it (for `audit.jsonl`, `log.jsonl.gz`), for `topic` the topics.",
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Settings of the workers that decided; an exported log brings them along."),
]
SinceOption = Annotated[
    dt.datetime | None, typer.Option(formats=_TIMES, metavar="TIME", help="Only audit records appended then or later (UTC).")
]
UntilOption = Annotated[dt.datetime | None, typer.Option(formats=_TIMES, metavar="TIME", help="Only those appended before (UTC).")]


@app.callback(invoke_without_command=True)
def replay(
    context: typer.Context,
    *,
    verify: Annotated[
        str | None,
        typer.Option(metavar="AUDIT", help="Build every prompt of this audit trail again and check its hash: a JSONL file, or `topic`."),
    ] = None,
    audit: Annotated[
        str, typer.Option(metavar="AUDIT", help="Where `--show` and `--ask` look decisions up: a JSONL file, or `topic`.")
    ] = TOPIC,
    show: Annotated[
        str | None, typer.Option(metavar="ID", help="Show one decision with its prompt: its trigger_id or signal_id, or how that begins.")
    ] = None,
    ask: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Ask this engine again, and say how its answers differ: of the decision shown, else of the last ones."
        ),
    ] = None,
    last: Annotated[int, typer.Option(min=1, help="How many decisions `--ask` asks again.")] = 20,
    log: LogOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    config: ConfigOption = None,
) -> None:
    """Build any decision's prompt again from the log, check it against the audit, show it, or ask an engine anew.

    A prompt is a pure function of the log: symbol, interval, mode, as-of and configuration version give the same token ids on any
    machine, for as long as the log is kept. So an audit record can be checked years later, by anybody who has the log.

    **Every prompt of a demo:** what differs, and any damaged record of either file, is named. Exit status 1 unless all match.

        aquiline replay --verify demo-audit.jsonl

    **A day of a worker on Kafka, with its settings:**

        aquiline replay --verify topic --since 2026-11-26 --until 2026-11-27 --config aquiline.toml

    **One decision, as the model saw it:**

        aquiline replay --audit demo-audit.jsonl --show 4429f65c

    **Another engine on the same prompts** (an OpenAI-compatible one with `engine.kind = "openai"` in `--config`):

        aquiline replay --audit demo-audit.jsonl --ask http://127.0.0.1:30000 --last 50
    """
    if context.invoked_subcommand is not None:
        return
    if verify is None and show is None and ask is None:
        typer.echo(context.get_help())
        raise typer.Exit
    # Imports take a second, which `--help` need not wait for.
    from services.replay.replay_command import Source, ask_command, show_command, verify_command  # noqa: PLC0415

    source = Source(verify or audit, log, _ms(since), _ms(until), config)
    if verify is not None:
        raise typer.Exit(0 if asyncio.run(verify_command(source)) else 1)
    if ask is not None:
        asyncio.run(ask_command(source, ask, show, last))
    elif show is not None:
        raise typer.Exit(0 if asyncio.run(show_command(source, show)) else 1)


@app.command("export")
def export(
    name: Annotated[str, typer.Argument(help="What the two files are called: NAME-audit.jsonl and NAME-log.jsonl.gz.")],
    *,
    since: SinceOption = None,
    until: UntilOption = None,
    config: ConfigOption = None,
) -> None:
    """Write a span of the audit topic, and all of the log that its decisions rest on, to two files.

    The log reaches back as far as prompts may show, and carries the settings that shape prompts, so that
    `aquiline replay --verify NAME-audit.jsonl` needs nothing else.

        aquiline replay export monday --since 2026-11-23 --until 2026-11-24 --config aquiline.toml
    """
    from services.replay.replay_command import Source, export_command  # noqa: PLC0415

    asyncio.run(export_command(Source(TOPIC, TOPIC, _ms(since), _ms(until), config), name))


def _ms(time: dt.datetime | None) -> int | None:
    return None if time is None else round(time.replace(tzinfo=dt.UTC).timestamp() * 1000)
