"""`aquiline doctor`: every check of the doctor as a line, or all as JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import orjson
import typer

from services.cli.options import ConfigOption
from services.core import logs
from services.core.settings import LogSettings, Settings, SettingsError, load
from services.doctor.diagnosis import PROBE_TOPIC, Diagnosis
from services.doctor.finding import Finding, Level, fail, ok
from services.doctor.settings_in_force import missing_files

app = typer.Typer(rich_markup_mode="markdown")

_LABELS: Final[dict[Level, str]] = {"ok": "OK  ", "warn": "WARN", "fail": "FAIL", "skipped": "--  "}
_COLOURS: Final[dict[Level, str]] = {"ok": "green", "warn": "yellow", "fail": "red", "skipped": "bright_black"}


@app.command()
def doctor(
    *,
    config: ConfigOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object: `ok`, and `findings` with check, level, sentence and fix.")
    ] = False,
    probe: Annotated[
        bool, typer.Option("--probe", help=f"Also compare the clocks, with three records on a topic of the doctor's own ({PROBE_TOPIC}).")
    ] = False,
) -> None:
    """Check everything that a worker with these settings depends on. Report what is wrong and how to fix it.

    It reads the settings as a worker does. Then it asks Kafka (connection, TLS and log-in; each topic's partitions, retention,
    compaction, timestamps, sizes and replicas; the group's offsets; instruments; halts), Redis (memory limit and eviction), each engine
    (model, source, context against the longest prompt of these settings, KV cache against the live prefixes), the tokenizer and the
    GPU's driver. It changes nothing, and writes nothing without `--probe`.

    Each check prints a line: **OK**; **WARN**, it works but should be improved; **FAIL**, it does not work or breaks a guarantee; **--**,
    not checked. The exit status is 1 when a check fails, else 0.

    **Before the first start:**

        aquiline doctor --config aquiline.toml

    **As a gate in a deployment:**

        aquiline doctor --json --probe > doctor.json
    """
    logs.configure(LogSettings(level="error"), service="doctor")
    found: list[Finding] = []

    def report(finding: Finding) -> None:
        found.append(finding)
        if not as_json:
            _print(finding)

    asyncio.run(_run(config, report, probe=probe))
    failed = sum(finding.level == "fail" for finding in found)
    if as_json:
        typer.echo(orjson.dumps({"ok": not failed, "findings": [finding.as_dict() for finding in found]}, option=orjson.OPT_INDENT_2))
    else:
        warned = sum(finding.level == "warn" for finding in found)
        typer.echo(f"{_count(failed, 'error')}, {_count(warned, 'warning')} in {_count(len(found), 'check')}.")
    raise typer.Exit(1 if failed else 0)


async def _run(config: Path | None, report: Callable[[Finding], None], *, probe: bool) -> None:
    try:
        settings = load(config)
    except SettingsError as error:
        report(fail("settings", str(error), "correct the settings; `aquiline config check` checks them alone"))
        return
    report(_settings(settings))
    async for finding in Diagnosis(settings, probe=probe).findings():
        report(finding)


def _settings(settings: Settings) -> Finding:
    missing = missing_files(settings)
    if missing:
        return fail("settings", "; ".join(missing), "create the files, or correct their paths")
    return ok("settings", f"run mode {settings.run_mode.value}, bus {settings.bus.url}, engine {settings.engine.kind}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _print(finding: Finding) -> None:
    label = typer.style(_LABELS[finding.level], fg=_COLOURS[finding.level])
    fix = f" -> {finding.fix}" if finding.fix else ""
    typer.echo(f"{label}  {finding.check}: {finding.sentence}{fix}")
