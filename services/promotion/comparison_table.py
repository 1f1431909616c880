"""Prints a comparison on the terminal."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from services.promotion.comparison_result import Comparison, Side


def show(found: Comparison, console: Console) -> None:
    """Print a comparison: each side's figures, the matrix of actions, and the verdict."""
    console.print(
        f"From {_moment(found.from_ms)} to {_moment(found.until_ms)} UTC: {found.pairs:,} decisions of both on the same record, "
        f"{found.decided:,} of them published by both; {found.coverage:.1%} of live's triggers covered."
    )
    console.print(_sides(found))
    console.print(_matrix(found))
    if found.agreement is not None:
        vision = "" if found.same_vision is None else f"; {found.same_vision:.1%} of the pairs used the same vision record"
        console.print(f"Equal actions in {found.agreement:.1%} of the published pairs{vision}.")
    if found.returns is None:
        console.print("Returns: a side has no outcomes; run `python -m services.scoring` with both settings files.")
    else:
        made = found.returns
        interval = "too few for an interval" if made.low is None or made.high is None else f"95 %: {_bp(made.low)} to {_bp(made.high)}"
        console.print(
            f"Returns of {made.pairs:,} of {made.matured:,} matured pairs: live {_bp(made.live_mean)}, shadow {_bp(made.shadow_mean)}, "
            f"difference {_bp(made.difference)} ({interval})."
        )
    checks = Table("", "criterion", "threshold", "found", title="Verdict", title_justify="left")
    for check in found.checks:
        checks.add_row("[green]met[/]" if check.passed else "[red]not met[/]", check.name, escape(check.wanted), escape(check.got))
    console.print(checks)
    console.print("May be promoted." if found.passed else f"May not be promoted: {', '.join(one.name for one in found.failed)}.")


def _sides(found: Comparison) -> Table:
    table = Table("", "live", "shadow")
    for name, live, shadow in _rows(found.live, found.shadow):
        table.add_row(name, escape(live), escape(shadow))
    return table


def _rows(live: Side, shadow: Side) -> Iterator[tuple[str, str, str]]:
    yield "model", ", ".join(live.models) or "-", ", ".join(shadow.models) or "-"
    yield "source", ", ".join(live.sources) or "-", ", ".join(shadow.sources) or "-"
    yield "prompt version", ", ".join(live.prompt_versions) or "-", ", ".join(shadow.prompt_versions) or "-"
    yield "configuration", live.config_version, shadow.config_version
    if live.other_versions or shadow.other_versions:
        yield "ignored, of other versions", f"{live.other_versions:,}", f"{shadow.other_versions:,}"
    yield "triggers", f"{live.triggers:,}", f"{shadow.triggers:,}"
    for outcome in ("published", "conflated", "stale", "blocked", "failed"):
        yield outcome, f"{live.share(outcome):.2%}", f"{shadow.share(outcome):.2%}"
    yield "main reasons", _reasons(live), _reasons(shadow)
    for stage in live.latency_ms or shadow.latency_ms:
        yield f"{stage.replace('_', ' ')}, ms 50/95/99 %", _spread(live, stage), _spread(shadow, stage)
    yield "prefix hits", _figure(live.prefix_hits, ".1%"), _figure(shadow.prefix_hits, ".1%")
    yield "accepted tokens a step", _figure(live.accept_length, ".2f"), _figure(shadow.accept_length, ".2f")


def _matrix(found: Comparison) -> Table:
    columns = sorted({column for row in found.actions.values() for column in row})
    table = Table("live \\ shadow", *columns, title="Pairs by action or outcome", title_justify="left")
    for live, row in found.actions.items():
        table.add_row(live, *(f"{row.get(column, 0):,}" for column in columns))
    return table


def _reasons(side: Side) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in side.reasons.items()) or "-"


def _spread(side: Side, stage: str) -> str:
    found = side.latency_ms.get(stage)
    return "-" if found is None else f"{found.p50:,.0f} / {found.p95:,.0f} / {found.p99:,.0f}"


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _bp(value: float) -> str:
    return f"{value * 1e4:+.1f} bp"


def _moment(at_ms: int) -> str:
    return f"{dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC):%Y-%m-%d %H:%M:%S}"
