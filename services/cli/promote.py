"""`aquiline promote`: a candidate's decision settings into the live settings file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from services.cli.options import ActorOption, LiveOption, ReasonOption, actor_name, checked_reason

app = typer.Typer(rich_markup_mode="markdown")


@app.command()
def promote(
    *,
    live: LiveOption,
    candidate: Annotated[Path, typer.Option("--candidate", metavar="FILE", help="Settings file of the candidate, run mode shadow.")],
    reason: ReasonOption,
    comparison: Annotated[
        Path | None, typer.Option("--comparison", metavar="FILE", help="The file that `aquiline shadow compare --out` wrote.")
    ] = None,
    override: Annotated[
        str | None,
        typer.Option("--override", metavar="WHY", help="Promote although no comparison supports it. The reason is stored in the history."),
    ] = None,
    actor: ActorOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")] = False,
) -> None:
    """Copy the candidate's decision settings into the live settings file: model and engine, prompt, triggers, deadlines, guard.

    Every setting of `engine` and `fusion` that shapes decisions is copied in one step; group, symbols, broker, Redis and the others
    stay. The previous version, who, when, why and the comparison are kept in a numbered history beside the file.

    A promotion needs a comparison of these very settings, made in the last seven days, that met every criterion; `--override` lifts
    that. Never promoted are a candidate whose engine is the simulator, files of other run modes, and settings with which no worker
    would start.

    Workers continue with their old settings until they are restarted, one at a time. Halts stay in force.

        aquiline promote --live live.toml --candidate candidate.toml --comparison comparison.json --reason "longer window"
    """
    from services.promotion import promote_and_rollback as room  # noqa: PLC0415 - imports the engines

    why = checked_reason(reason)
    planned = room.plan_promotion(live, candidate, comparison, override, _note)
    for change in planned.changes:
        typer.echo(f"  {change}")
    if dry_run:
        typer.echo("Dry run: nothing was changed.")
        return
    version = room.promote(planned, actor_name(actor), why)
    typer.echo(f"Version {version.number} of {live} is in effect for every worker that starts from now on.")
    say_what_to_restart(live)


def say_what_to_restart(live: Path) -> None:
    """Print how workers take over the live file as it is now."""
    typer.echo(
        "Restart the live workers one at a time; each drains, commits, and continues where it stopped:\n"
        "  Kubernetes       kubectl apply -k OVERLAY && kubectl -n aquiline rollout status statefulset/fusion\n"
        "  docker compose   docker compose up -d --force-recreate fusion\n"
        "  systemd          systemctl restart aquiline-fusion\n"
        f"To undo: aquiline rollback --live {live} --reason ..."
    )


def _note(text: str) -> None:
    typer.echo(f"Note: {text}.", err=True)
