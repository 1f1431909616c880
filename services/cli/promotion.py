"""The commands: a candidate's decisions into the live settings, or the ones before back, with who, when, why and on what evidence."""

from __future__ import annotations

import asyncio
import getpass
import os
import tempfile
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from schemas import RunMode
from services.core.clock import SystemClock
from services.core.errors import ServiceError
from services.core.settings import Settings, SettingsError, load
from services.fusion.service import connect_engine
from services.inference.engine import EngineError
from services.promotion.comparison_result import Comparison
from services.promotion.decision_settings import SECTIONS, decision_settings_hash, deployment_settings
from services.promotion.settings_change import applied, changes
from services.promotion.settings_history import History, Version

promote_app = typer.Typer(rich_markup_mode="markdown")
rollback_app = typer.Typer(rich_markup_mode="markdown")

_MAX_AGE_MS: Final = 7 * 86_400_000
_SECRET: Final = "AQUILINE_ENGINE__API_KEY"  # noqa: S105 - a variable's name

LiveOption = Annotated[Path, typer.Option("--live", metavar="FILE", help="Settings file of the live workers; its history lies beside it.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why, in your words; it stands in the history.")]
ActorOption = Annotated[str | None, typer.Option("--actor", help="Who does it; the name of this machine's user when not given.")]


@promote_app.command()
def promote(
    *,
    live: LiveOption,
    candidate: Annotated[Path, typer.Option("--candidate", metavar="FILE", help="Settings file of the candidate, run mode shadow.")],
    reason: ReasonOption,
    comparison: Annotated[
        Path | None, typer.Option("--comparison", metavar="FILE", help="What `aquiline shadow compare --out` wrote of the two.")
    ] = None,
    override: Annotated[
        str | None,
        typer.Option(
            "--override", metavar="WHY", help="Promote without a comparison that bears it, and say why; it stands in the history."
        ),
    ] = None,
    actor: ActorOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")] = False,
) -> None:
    """Have live decide as the candidate does: model and engine, prompt, triggers, deadlines, guard.

    Every setting of `engine` and `fusion` that shapes decisions is taken over into the live settings file in one step; group, symbols,
    broker, Redis and the rest stay. The version before, who, when, why and the comparison are kept in a numbered history beside the file.

    Refused without a comparison of these very settings, made in the last seven days, that met every criterion, unless `--override`
    says why. Refused in any case: a candidate whose engine is the simulator, files of other run modes, and settings that no worker would
    start with.

    Workers go on as they are until they are restarted, one at a time. Halts stand on the topic `control` and hold throughout.

        aquiline promote --live live.toml --candidate candidate.toml --comparison comparison.json --reason "longer window"
    """
    _refuse_variables()
    before, after = _settings(live, RunMode.LIVE, "--live"), _settings(candidate, RunMode.SHADOW, "--candidate")
    wanted = changes(before, after)
    if not wanted:
        raise SettingsError(f"{live} and {candidate} decide alike; there is nothing to promote")
    found = _read(comparison) if comparison is not None else None
    _refuse_simulator(after, found)
    if (wrong := doubts(found, before, after)) and override is None:
        raise ServiceError(
            f"not promoted: {'; '.join(wrong)}. Compare again (`aquiline shadow compare`), or say with --override why it is to be promoted "
            "all the same"
        )
    text = applied(live.read_text(), wanted)
    if _rest(made := _check(text, live)) != _rest(before) or changes(made, after):
        raise ServiceError(
            f"{live} is laid out so that the changes cannot be written into it; make these by hand: {'; '.join(map(str, wanted))}"
        )
    for change in wanted:
        typer.echo(f"  {change}")
    if dry_run:
        typer.echo("Nothing has been changed.")
        return
    history, who = History(live), _who(actor)
    with history.locked():
        history.current(who)
        version = history.change(
            text,
            action="promoted",
            actor=who,
            reason=_why(reason),
            changes=wanted,
            comparison=found.model_dump(mode="json") if found is not None else None,
            override=override if wrong else None,
        )
    typer.echo(f"Version {version.number} of {live} is in effect for every worker that starts from now on.")
    _say_what_to_roll(live)


@rollback_app.command()
def rollback(
    *,
    live: LiveOption,
    reason: Annotated[str | None, typer.Option("--reason", help="Why, in your words; it stands in the history.")] = None,
    to: Annotated[int | None, typer.Option("--to", min=1, help="The version to bring back; the one before the present one.")] = None,
    actor: ActorOption = None,
    listed: Annotated[bool, typer.Option("--list", help="Show the history, and change nothing.")] = False,
) -> None:
    """Bring the live settings back as they were before the last promotion, or at any version.

    It needs neither Kafka nor an engine: the text of every version lies in the history beside the file. Rolling back is a version too, and
    can be rolled back.

        aquiline rollback --live live.toml --reason "late since the promotion"
    """
    history = History(live)
    if not live.is_file():
        raise SettingsError(f"settings file {str(live)!r} does not exist or is not a file")
    if listed:
        _show(history)
        return
    if reason is None:
        raise typer.BadParameter("say why, in a few words", param_hint="--reason")
    who = _who(actor)
    with history.locked():
        current = history.current(who)
        number = history.before(current) if to is None else to
        text = history.text(number)
        if text == live.read_text():
            typer.echo(f"{live} is as it was in version {number}; nothing has been changed.")
            return
        _check(text, live)
        version = history.change(text, action="rolled back", actor=who, reason=_why(reason), restores=number)
    typer.echo(f"{live} is as it was in version {number} again (version {version.number} of its history).")
    _say_what_to_roll(live)


def doubts(found: Comparison | None, live: Settings, candidate: Settings) -> list[str]:
    """Return why a comparison does not bear a promotion; nothing when it does."""
    if found is None:
        return ["there is no --comparison"]
    wrong = [f"{check.name} is {check.got}, and {check.wanted} is wanted" for check in found.failed]
    for name, side, settings in (("live", found.live, live), ("candidate", found.shadow, candidate)):
        if side.settings_hash != decision_settings_hash(settings):
            wrong.append(f"the comparison is of other settings than the {name} file now has")
    age_ms = SystemClock().now_ms() - found.made_ms
    if age_ms > _MAX_AGE_MS:
        wrong.append(f"the comparison is {age_ms / 86_400_000:.0f} days old, and markets move on")
    return wrong


def _settings(file: Path, wanted: RunMode, option: str) -> Settings:
    settings = load(file)
    if settings.run_mode is not wanted:
        raise SettingsError(f"{option} {file} has run_mode = {settings.run_mode.value!r}; {wanted.value!r} is wanted")
    return settings


def _refuse_variables() -> None:
    """Raise SettingsError when this shell has a say in what files would decide."""
    prefixes = tuple(f"AQUILINE_{section.upper()}__" for section in SECTIONS)
    said = sorted(name for name in os.environ if name.startswith((*prefixes, "AQUILINE_RUN_MODE")) and name != _SECRET)
    if said:
        raise SettingsError(f"variables {', '.join(said)} hold against both files, so that these do not say what is decided; unset them")


def _refuse_simulator(candidate: Settings, found: Comparison | None) -> None:
    """Raise SettingsError when the candidate is the simulator: by its own word, or as the comparison saw it."""
    said = "simulator" in found.shadow.sources if found is not None else False
    engine = connect_engine(candidate.engine, SystemClock())

    async def ask() -> bool:
        try:
            return (await engine.info()).source == "simulator"
        except EngineError as error:
            typer.echo(f"Note: the candidate's engine does not answer from here ({error.detail}); the worker asks it again.", err=True)
            return False
        finally:
            await engine.close()

    if asyncio.run(ask()) or said:
        raise SettingsError("the candidate was answered by the simulator, which live never acts on; name a real engine in engine.urls")


def _read(file: Path) -> Comparison:
    try:
        return Comparison.model_validate_json(file.read_bytes())
    except OSError as error:
        raise SettingsError(f"--comparison {file}: {error.strerror}") from error
    except ValidationError as error:
        raise SettingsError(
            f"--comparison {file} is not what `aquiline shadow compare --out` writes: {error.errors()[0]['msg']}"
        ) from error


def _rest(settings: Settings) -> dict[str, Any]:
    """Return what a promotion leaves alone."""
    return {name: section for name, section in settings.model_dump().items() if name not in SECTIONS} | deployment_settings(settings)


def _check(text: str, live: Path) -> Settings:
    """Return the settings in `text`; raise SettingsError when no worker would start with them."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(text)
        file.flush()
        try:
            settings = load(Path(file.name))
        except SettingsError as error:
            raise SettingsError(f"no worker of this release would start with that, so {live} is left as it is: {error}") from error
    if settings.run_mode is not RunMode.LIVE:
        raise SettingsError(f"that has run_mode = {settings.run_mode.value!r}, so {live} is left as it is")
    return settings


def _say_what_to_roll(live: Path) -> None:
    typer.echo(
        "Now restart the live workers, one at a time; each drains, commits, and goes on where it stopped:\n"
        "  Kubernetes       kubectl apply -k OVERLAY && kubectl -n aquiline rollout status statefulset/fusion\n"
        "  docker compose   docker compose up -d --force-recreate fusion\n"
        "  systemd          systemctl restart aquiline-fusion\n"
        f"Back again: aquiline rollback --live {live} --reason ..."
    )


def _show(history: History) -> None:
    table = Table("version", "when (UTC)", "what", "who", "why", "changes")
    for version in history.versions():
        table.add_row(
            str(version.number),
            version.at.removesuffix("+00:00"),
            _what(version),
            escape(version.actor),
            escape(version.reason),
            escape("\n".join(map(str, version.changes))),
        )
    Console().print(table)


def _what(version: Version) -> str:
    if version.restores is not None:
        return f"{version.action} to {version.restores}"
    return f"{version.action}, against its comparison" if version.override is not None else version.action


def _who(actor: str | None) -> str:
    return (actor or getpass.getuser())[:100]


def _why(reason: str) -> str:
    if not reason.strip():
        raise typer.BadParameter("say why, in a few words", param_hint="--reason")
    return reason[:500]
