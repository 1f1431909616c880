"""The command: a line a check, or JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import orjson
import typer

from services.cli.config import missing_files
from services.core import logs
from services.core.settings import LogSettings, Settings, SettingsError, load
from services.doctor.diagnosis import PROBE_TOPIC, Diagnosis
from services.doctor.finding import Finding, Level, fail, ok

app = typer.Typer(rich_markup_mode="markdown")

_WORDS: Final[dict[Level, str]] = {"ok": "OK  ", "warn": "WARN", "fail": "FAIL", "skipped": "--  "}
_COLOURS: Final[dict[Level, str]] = {"ok": "green", "warn": "yellow", "fail": "red", "skipped": "bright_black"}


@app.command()
def doctor(
    *,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="Settings file in TOML; the one that AQUILINE_CONFIG names when not given."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object: `ok`, and `findings` with check, level, sentence, mend.")
    ] = False,
    probe: Annotated[
        bool, typer.Option("--probe", help=f"Also compare the clocks, by three records on a topic of its own ({PROBE_TOPIC}).")
    ] = False,
) -> None:
    """Check everything that a worker with these settings depends on. Report what is wrong and how to fix it.

    It reads the settings as a worker does, then asks Kafka (reachable, TLS and log-in; each topic's partitions, retention, compaction,
    timestamps, sizes and copies; the group's offsets; instruments; halts), Redis (memory limit and eviction), each engine (model, source,
    context against the longest prompt of these settings, KV cache against the live prefixes), the tokenizer and the GPU's driver.
    Nothing is changed, and nothing is written without `--probe`.

    A line a check: **OK**; **WARN**, it works and could be better; **FAIL**, it does not work or breaks a promise; **--**, not looked at.
    The exit status is 1 when anything fails, else 0.

    **Before the first start:**

        aquiline doctor --config aquiline.toml

    **As a gate in a deployment:**

        aquiline doctor --json --probe > doctor.json
    """
    logs.configure(LogSettings(level="error"), service="doctor")
    found: list[Finding] = []

    def tell(finding: Finding) -> None:
        found.append(finding)
        if not as_json:
            _print(finding)

    asyncio.run(_look(config, tell, probe=probe))
    failed = sum(finding.level == "fail" for finding in found)
    if as_json:
        typer.echo(orjson.dumps({"ok": not failed, "findings": [finding.as_dict() for finding in found]}, option=orjson.OPT_INDENT_2))
    else:
        warned = sum(finding.level == "warn" for finding in found)
        typer.echo(f"{failed} to mend, {warned} to think about, of {len(found)} checks." if failed or warned else "All is well.")
    raise typer.Exit(1 if failed else 0)


async def _look(config: Path | None, tell: Callable[[Finding], None], *, probe: bool) -> None:
    try:
        settings = load(config)
    except SettingsError as error:
        tell(fail("settings", str(error), "mend the settings; `aquiline config check` reads nothing else"))
        return
    tell(_settings(settings))
    async for finding in Diagnosis(settings, probe=probe).findings():
        tell(finding)


def _settings(settings: Settings) -> Finding:
    missing = missing_files(settings)
    if missing:
        return fail("settings", "; ".join(missing), "put the files there, or mend their paths")
    return ok("settings", f"run mode {settings.run_mode.value}, bus {settings.bus.url}, engine {settings.engine.kind}")


def _print(finding: Finding) -> None:
    word = typer.style(_WORDS[finding.level], fg=_COLOURS[finding.level])
    mend = f" -> {finding.mend}" if finding.mend else ""
    typer.echo(f"{word}  {finding.check}: {finding.sentence}{mend}")
