"""Findings on what a worker reads and runs on: instruments, halts, group offsets and the clock. Pure: this module asks nothing."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence

from schemas import SymbolChange
from services.core.settings import Settings
from services.doctor.finding import Finding, fail, ok, warn


def halt_findings(halted: str | None, symbols: Sequence[str]) -> list[Finding]:
    """Return the findings on halts: `halted` is the reason why everything is halted, `symbols` those halted by name."""
    if halted is not None:
        return [warn("control", f"everything is HALTED: {halted}", "to resume: `aquiline resume --reason ...`")]
    if symbols:
        named = ", ".join(symbols[:10]) + (f" and {len(symbols) - 10} more" if len(symbols) > 10 else "")  # noqa: PLR2004 - as shown
        return [warn("control", f"HALTED by name: {named}", "to resume: `aquiline resume SYMBOL --reason ...`")]
    return [ok("control", "ACTIVE")]


def instrument_findings(settings: Settings, known: Iterable[str], unusable: Mapping[str, str]) -> list[Finding]:
    """Return the findings on the `known` symbols; `unusable` maps some to the reason why they cannot be used."""
    names = set(known)
    found = [
        fail("instruments", f"{symbol} cannot be used: {why}", "correct the instrument, and publish it again")
        for symbol, why in sorted(unusable.items())
    ]
    if not names:
        found.append(
            fail(
                "instruments",
                "the topic holds no instrument, so every bar is dead-lettered as unknown_instrument",
                "publish one record for each symbol on the topic `instruments` (format: docs/messages.md)",
            )
        )
    if names and (absent := sorted(set(settings.fusion.symbols) - names)):
        found.append(
            fail(
                "instruments",
                f"fusion.symbols names {', '.join(absent)}, which the topic does not hold",
                "publish them, or remove them from fusion.symbols",
            )
        )
    if len(names) > settings.fusion.max_symbols:
        found.append(
            fail(
                "instruments",
                f"the topic holds {len(names)}, and fusion.max_symbols is {settings.fusion.max_symbols}: the rest is dead-lettered",
                "raise fusion.max_symbols, or list the symbols in fusion.symbols",
            )
        )
    return found or [ok("instruments", f"{len(names)} known")]


def symbol_change_findings(changes: Iterable[SymbolChange], known: Iterable[str], now_ms: int) -> list[Finding]:
    """Return the findings on symbols that are replaced; `known` are the symbols with an instrument."""
    names, check = set(known), "symbol changes"
    found = []
    for change in changes:
        old, new = change.symbol, change.new_symbol
        when = f"{dt.datetime.fromtimestamp(change.effective_ms / 1000, dt.UTC):%Y-%m-%d %H:%M} UTC"
        if new not in names:
            what = f"{old} is {new} from {when} on, and the topic `instruments` does not hold {new}: its bars are dead-lettered"
            found.append(fail(check, what, f"publish the instrument {new} before its first bar"))
        elif change.effective_ms > now_ms:
            what = f"{old} becomes {new} at {when}: decisions on {old} end then, and {new} starts without the history of {old}"
            fix = f"publish the candles of {old} under {new} before the first bar of {new} (docs/markets.md, Changes of symbol)"
            found.append(warn(check, what, fix))
    return found


def offset_findings(check: str, lag: int, lost: int, beyond: int, *, committed: bool, start_from: str) -> Finding:
    """Return the finding on a group: `lag` records to read, `lost` deleted before they were read, `beyond` the log's end."""
    if not committed:
        return ok(check, f"has no committed offsets; it starts from {start_from}")
    if lost or beyond:
        what = f"{lost} records were deleted before they were read" if lost else f"its offsets are {beyond} beyond the end of the log"
        why = "increase retention.ms" if lost else "the topics were recreated: change fusion.log_id too"
        return fail(
            check,
            f"{what}; workers stop instead of skipping records",
            f"{why}, then move the group with kafka-consumer-groups.sh --reset-offsets",
        )
    return ok(check, f"{lag} records to read")


def skew_finding(skew_ms: int, limit_ms: int, how: str) -> Finding:
    """Return the finding on the clocks; `skew_ms` is this machine's less the broker's, measured `how`."""
    if abs(skew_ms) <= limit_ms:
        return ok("clock", f"differs from the broker's by at most {skew_ms} ms (measured {how})")
    return fail(
        "clock",
        f"differs from the broker's by {skew_ms} ms (measured {how}); beyond fusion.max_skew_ms = {limit_ms} signals are blocked",
        "run NTP (chrony) on both machines",
    )
