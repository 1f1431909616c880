"""Findings on what a worker reads and runs on: instruments, halts, group offsets and the clock. Pure: this module asks nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from services.core.settings import Settings
from services.doctor.finding import Finding, fail, ok, warn


def halt_findings(halted: str | None, symbols: Sequence[str]) -> list[Finding]:
    """Return what operators have said: `halted` is why everything is, `symbols` those halted by name."""
    if halted is not None:
        return [warn("control", f"everything is HALTED: {halted}", "when it is meant to run: `aquiline resume --reason ...`")]
    if symbols:
        named = ", ".join(symbols[:10]) + (f" and {len(symbols) - 10} more" if len(symbols) > 10 else "")  # noqa: PLR2004 - as shown
        return [warn("control", f"HALTED by name: {named}", "`aquiline resume SYMBOL --reason ...`")]
    return [ok("control", "ACTIVE")]


def instrument_findings(settings: Settings, known: Iterable[str], unusable: Mapping[str, str]) -> list[Finding]:
    """Return what is to be said of `known` symbols; `unusable` tells why some cannot be used."""
    names = set(known)
    found = [fail("instruments", f"{symbol} cannot be used: {why}", "publish it again, mended") for symbol, why in sorted(unusable.items())]
    if not names:
        found.append(
            fail(
                "instruments",
                "no instrument is known, so that every bar is dead-lettered as unknown_instrument",
                "publish one record a symbol on the topic `instruments` (docs/messages.md says how it looks)",
            )
        )
    if names and (absent := sorted(set(settings.fusion.symbols) - names)):
        found.append(
            fail("instruments", f"fusion.symbols names {', '.join(absent)}, of which nothing is known", "publish them, or drop them")
        )
    if len(names) > settings.fusion.max_symbols:
        found.append(
            fail(
                "instruments",
                f"{len(names)} are known and fusion.max_symbols is {settings.fusion.max_symbols}: the rest is dead-lettered",
                "raise it, or name the ones you mean in fusion.symbols",
            )
        )
    return found or [ok("instruments", f"{len(names)} known")]


def offset_findings(check: str, lag: int, lost: int, beyond: int, *, committed: bool, start_from: str) -> Finding:
    """Return what is to be said of a group: `lag` records to read, `lost` that were deleted unread, `beyond` the log's end."""
    if not committed:
        return ok(check, f"has committed nothing yet and will start from {start_from}")
    if lost or beyond:
        what = f"{lost} records were deleted before they were read" if lost else f"its offsets lie {beyond} beyond the end of the log"
        why = "lengthen retention.ms" if lost else "topics were made anew: change fusion.log_id too"
        return fail(
            check,
            f"{what}; the worker stops rather than skip them",
            f"{why}, then move the group (kafka-consumer-groups.sh --reset-offsets)",
        )
    return ok(check, f"{lag} records to read")


def skew_finding(skew_ms: int, limit_ms: int, how: str) -> Finding:
    """Return what is to be said of the clocks; `skew_ms` is this machine's less the broker's, as told by `how`."""
    if abs(skew_ms) <= limit_ms:
        return ok("clock", f"differs from the broker's by {skew_ms} ms at most ({how})")
    return fail(
        "clock",
        f"differs from the broker's by {skew_ms} ms ({how}), and fusion.max_skew_ms is {limit_ms}: signals are blocked as clock_skew",
        "run NTP (chrony) on both machines",
    )
