"""The command: reads both trails, compares them, shows the comparison and stores it for `aquiline promote`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from schemas import RunMode, interval_ms
from services.core import logs
from services.core.bus.connect import connect
from services.core.clock import SystemClock
from services.core.settings import LogSettings, Settings, SettingsError, load
from services.fusion.prompt.builder import config_version
from services.fusion.prompt.version import PROMPT_VERSION
from services.fusion.service import load_tokenizer
from services.promotion.comparison import Criteria, Expected, NothingToCompareError, compare
from services.promotion.comparison_result import Comparison
from services.promotion.comparison_table import show
from services.promotion.decision_pairs import SideRecords
from services.promotion.decision_settings import decision_settings_hash
from services.promotion.read_audit import read_side

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="Compare a candidate in run mode shadow with live.")

_DEFAULTS: Final = Criteria()
_err = Console(stderr=True)

Share = Annotated[float, typer.Option(min=0, max=1)]


@app.callback()
def shadow() -> None:
    """Compare a candidate in run mode shadow with live."""


@app.command("compare")
def compare_sides(
    *,
    live: Annotated[Path, typer.Option("--live", metavar="FILE", help="Settings file of the live workers.")],
    candidate: Annotated[Path, typer.Option("--shadow", metavar="FILE", help="Settings file of the candidate, run mode shadow.")],
    since: Annotated[str, typer.Option(help="How far to look back: `30m`, `6h`, `2d`.")] = "1d",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the comparison as JSON, for `aquiline promote`.")] = None,
    min_pairs: Annotated[int, typer.Option(min=1, help="Moments decided by both.")] = _DEFAULTS.min_pairs,
    min_minutes: Annotated[float, typer.Option(min=0, help="Length of the span with triggers of both.")] = _DEFAULTS.min_span_ms / 60_000,
    min_coverage: Annotated[float, typer.Option(min=0, max=1, help="Share of live's triggers.")] = _DEFAULTS.min_coverage,
    min_agreement: Annotated[float, typer.Option(min=0, max=1, help="Share of same actions; 0 to ask for none.")] = _DEFAULTS.min_agreement,
    max_slower: Annotated[float, typer.Option(min=0, help="95th percentile from record to decision, times live's.")] = _DEFAULTS.max_slower,
    max_lost: Annotated[float, typer.Option(min=0, max=1, help="Stale or failed, above live's share.")] = _DEFAULTS.max_lost,
    max_hits_lost: Annotated[float, typer.Option(min=0, max=1, help="Prefix hits, below live's share.")] = _DEFAULTS.max_hits_lost,
) -> None:
    """Hold what a candidate decided in run mode shadow against what live decided on the same records.

    Both workers run side by side on one cluster: the shadow reads live's inputs and writes topics of its own. Decisions are joined by
    symbol, interval, mode and the market record that they rest on. Shown are coverage, who did what, latency, outcomes, prefix hits,
    acceptance, and, where both are scored (`services.scoring`), the paired difference of returns with its interval.

    The exit status is 0 when every criterion is met, 1 when one is missed, 2 when there is nothing to compare.

        aquiline shadow compare --live live.toml --shadow candidate.toml --since 1d --out comparison.json
    """
    logs.configure(LogSettings(level="error"), service="shadow")
    sides = _settings(live, RunMode.LIVE, "--live"), _settings(candidate, RunMode.SHADOW, "--shadow")
    if sides[0].bus.url != sides[1].bus.url:
        raise SettingsError(f"bus.url is {sides[0].bus.url!r} in {live} and {sides[1].bus.url!r} in {candidate}; name one cluster in both")
    try:
        span_ms = interval_ms(since)
    except ValueError:
        raise typer.BadParameter(f"{since!r} is no length of time such as 30m, 6h or 2d", param_hint="--since") from None
    now_ms = SystemClock().now_ms()
    trails = asyncio.run(_read(sides, now_ms - span_ms))
    criteria = Criteria(min_pairs, round(min_minutes * 60_000), min_coverage, min_agreement, max_slower, max_lost, max_hits_lost)
    try:
        found = compare(trails, (_expected(sides[0]), _expected(sides[1])), sides[1].fusion.symbols, criteria, now_ms)
    except NothingToCompareError as error:
        raise SettingsError(f"nothing to compare since {since} ago: {error}") from error
    if out is not None:
        store(found, out)
    show(found, Console())
    raise typer.Exit(0 if found.passed else 1)


def store(found: Comparison, file: Path) -> None:
    """Write a comparison as JSON."""
    file.write_text(found.model_dump_json(indent=2) + "\n")


def _settings(file: Path, wanted: RunMode, option: str) -> Settings:
    settings = load(file)
    if settings.run_mode is not wanted:
        raise SettingsError(f"{option} {file} has run_mode = {settings.run_mode.value!r}; {wanted.value!r} is wanted")
    return settings


def _expected(settings: Settings) -> Expected:
    engine = settings.engine
    try:
        version = config_version(settings.fusion, load_tokenizer(engine), engine.chat_template)
    except SettingsError:
        version = None  # the tokenizer is where the workers are
    return Expected(decision_settings_hash(settings), version, PROMPT_VERSION)


async def _read(sides: tuple[Settings, Settings], since_ms: int) -> tuple[SideRecords, SideRecords]:
    with _err.status("Reading…") as status:

        def tell(topic: str, done: int, total: int) -> None:
            status.update(f"Reading {topic}: {done:,} of {total:,}")

        trails = []
        for settings in sides:
            bus = connect(settings.bus, SystemClock())
            try:
                trails.append(await read_side(bus, settings.run_mode, sides[1].fusion.symbols, since_ms, tell))
            finally:
                await bus.close()
    return trails[0], trails[1]
