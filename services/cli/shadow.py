"""`aquiline shadow compare`: reads the audit of both sides, compares them, and stores the comparison for `aquiline promote`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from schemas import RunMode, interval_ms
from services.cli.options import LiveOption
from services.core import logs
from services.core.bus.connect import connect
from services.core.clock import SystemClock
from services.core.settings import LogSettings, Settings, SettingsError
from services.fusion.prompt.builder import config_version
from services.fusion.prompt.version import version_of
from services.fusion.service import load_tokenizer
from services.promotion.comparison import Criteria, Expected, NothingToCompareError, compare
from services.promotion.comparison_result import Comparison
from services.promotion.comparison_table import show
from services.promotion.decision_pairs import SideRecords
from services.promotion.decision_settings import decision_settings_hash
from services.promotion.promote_and_rollback import load_in_mode
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
    live: LiveOption,
    candidate: Annotated[Path, typer.Option("--shadow", metavar="FILE", help="Settings file of the candidate, run mode shadow.")],
    since: Annotated[str, typer.Option(help="How far back to compare: `30m`, `6h`, `2d`.")] = "1d",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the comparison as JSON, for `aquiline promote`.")] = None,
    min_pairs: Annotated[
        int, typer.Option(min=1, help="Decisions that both sides made on the same record, at least.")
    ] = _DEFAULTS.min_pairs,
    min_minutes: Annotated[float, typer.Option(min=0, help="Minutes in which both sides had triggers, at least.")] = _DEFAULTS.min_span_ms
    / 60_000,
    min_coverage: Annotated[
        float, typer.Option(min=0, max=1, help="Share of live's triggers that the shadow also had, at least.")
    ] = _DEFAULTS.min_coverage,
    min_agreement: Annotated[
        float, typer.Option(min=0, max=1, help="Share of equal actions, at least; 0 for no requirement.")
    ] = _DEFAULTS.min_agreement,
    max_slower: Annotated[
        float, typer.Option(min=0, help="95th percentile from record to decision, at most this many times live's.")
    ] = _DEFAULTS.max_slower,
    max_lost: Annotated[
        float, typer.Option(min=0, max=1, help="Share of stale or failed triggers, at most this much above live's.")
    ] = _DEFAULTS.max_lost,
    max_hits_lost: Annotated[
        float, typer.Option(min=0, max=1, help="Share of prefix hits, at most this much below live's.")
    ] = _DEFAULTS.max_hits_lost,
    min_matured: Annotated[
        int, typer.Option(min=1, help="Pairs in which a side wanted a position and whose horizon is over, at least.")
    ] = _DEFAULTS.min_matured,
    margin_bps: Annotated[
        float,
        typer.Option(
            min=0, metavar="BPS", help="What a pair may make less than live's at the low end of the 95 % interval, in basis points."
        ),
    ] = _DEFAULTS.margin_bps,
) -> None:
    """Compare the decisions of a candidate in run mode shadow with live's decisions on the same records.

    Both workers run side by side on one cluster: the shadow reads live's inputs and writes its own topics. Decisions are matched by
    symbol, interval, mode and market record. The comparison shows coverage, actions, latency, outcomes, prefix hits and accepted
    tokens, and the paired difference of returns with its interval, for which the scorer has to run on both sides.

    The exit status is 0 when every criterion is met, 1 when one is not, 2 when there is nothing to compare.

        aquiline shadow compare --live live.toml --shadow candidate.toml --since 1d --out comparison.json
    """
    logs.configure(LogSettings(level="error"), service="shadow")
    sides = load_in_mode(live, RunMode.LIVE, "--live"), load_in_mode(candidate, RunMode.SHADOW, "--shadow")
    if sides[0].bus.url != sides[1].bus.url:
        raise SettingsError(
            f"bus.url is {sides[0].bus.url!r} in {live} and {sides[1].bus.url!r} in {candidate}; both must name one cluster"
        )
    try:
        span_ms = interval_ms(since)
    except ValueError:
        raise typer.BadParameter(f"{since!r} is not a length of time such as 30m, 6h or 2d", param_hint="--since") from None
    now_ms = SystemClock().now_ms()
    trails = asyncio.run(_read(sides, now_ms - span_ms))
    criteria = Criteria(
        min_pairs=min_pairs,
        min_span_ms=round(min_minutes * 60_000),
        min_coverage=min_coverage,
        min_agreement=min_agreement,
        max_slower=max_slower,
        max_lost=max_lost,
        max_hits_lost=max_hits_lost,
        min_matured=min_matured,
        margin_bps=margin_bps,
    )
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


def _expected(settings: Settings) -> Expected:
    engine = settings.engine
    try:
        version = config_version(settings.fusion, load_tokenizer(engine), engine.chat_template)
    except SettingsError:
        version = None  # the tokenizer is where the workers are
    return Expected(decision_settings_hash(settings), version, version_of(settings.fusion.strategy))


async def _read(sides: tuple[Settings, Settings], since_ms: int) -> tuple[SideRecords, SideRecords]:
    with _err.status("Reading…") as status:

        def tell(topic: str, done: int, total: int) -> None:
            status.update(f"Reading {topic}: {done:,} of {total:,}")

        trails = []
        for settings in sides:
            bus = connect(settings.bus, SystemClock(), settings.topics)
            try:
                trails.append(await read_side(bus, settings.run_mode, sides[1].fusion.symbols, since_ms, tell))
            finally:
                await bus.close()
    return trails[0], trails[1]
