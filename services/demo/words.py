"""The demo's words: each signal and each ending as one sentence a person can read, and the banner that nobody can overlook."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, Final

from schemas import Action, AuditRecord, Outcome, Signal
from services.core.settings import Settings
from services.demo.script import Act, Phase
from services.demo.tally import total_ms

SIMULATED: Final = "SIMULATOR / DEMO: fixed rules answer here, no model does; old prices. Nothing on this screen is advice."

_ACTION_STYLES: Final = {
    Action.BUY: "bold green",
    Action.SELL: "bold red",
    Action.EXIT: "bold yellow",
    Action.HOLD: "bold cyan",
    Action.ABSTAIN: "bold magenta",
}

_FAILURES: Final = {
    "engine_unreachable": "the engine cannot be reached",
    "engine_broke": "the engine broke off",
    "engine_open": "the engine keeps failing and is left alone for a moment",
    "engine_timeout": "no answer came before the deadline",
}

_BLOCKS: Final = {
    "min_bars": "too few bars yet for a view",
    "halted": "halted by an operator: `aquiline halt` and `resume` decide",
}


def banner(source: str | None, engine: str) -> str:
    """Return the banner; `source` is what the engine says it is, None while that is not known."""
    if source == "llm":
        return f"DEMO: old prices, answered by the model behind {engine}. Nothing on this screen is advice."
    return SIMULATED


def day_of(ts_ms: int) -> dt.date:
    """Return the day of an event time, in UTC."""
    return dt.datetime.fromtimestamp(ts_ms / 1000, dt.UTC).date()


def action_style(action: Action) -> str:
    """Return the style that an action is shown in."""
    return _ACTION_STYLES[action]


def signal_sentence(signal: Signal, audit: AuditRecord) -> str:
    """Return a published signal as a sentence."""
    valid_s = (signal.valid_until_ms - signal.as_of.market.ts_ms) / 1000
    parts = [f"{_view(signal)}; valid {valid_s:g} s"]
    if signal.conviction is not None:
        parts.append(f"conviction {signal.conviction:.2f}, {signal.horizon_bars} bars")
    chart: str = signal.vision
    if signal.vision == "stale" and signal.vision_age_ms is not None:
        chart = f"{chart} by {signal.vision_age_ms / 86_400_000:.0f} d"
    parts.extend((f"chart {chart}", f"{total_ms(audit):.0f} ms"))
    if audit.prompt_tokens and audit.cached_tokens is not None:
        parts.append(f"{audit.cached_tokens / audit.prompt_tokens:.0%} cached")
    return ", ".join(parts)


def ending_sentence(audit: AuditRecord) -> str:
    """Return what a trigger that made no signal ended with, and why."""
    reason = audit.reason or ""
    match audit.outcome:
        case Outcome.FAILED:
            return f"failed ({reason}): {_FAILURES.get(reason, 'see the audit')}; no signal leaves, and none that says hold"
        case Outcome.BLOCKED:
            return f"blocked ({reason}): {_BLOCKS.get(reason, audit.detail or 'the guard stopped it')}"
        case Outcome.STALE:
            return f"stale ({reason}): too old to act on, so nothing leaves"
        case _:
            return f"conflated ({reason}): a newer bar took its place in line"


def _view(signal: Signal) -> str:
    name, money = signal.symbol, signal.currency
    match signal.action:
        case Action.BUY | Action.SELL:
            limit = "up to" if signal.action is Action.BUY else "down to"
            side = signal.action.value.upper()
            return f"{side} {name} {limit} {signal.entry} {money}, stop {signal.stop}, target {signal.target}"
        case Action.EXIT:
            return f"EXIT {name}: close what is held, last {signal.ref_price} {money}"
        case Action.HOLD:
            return f"HOLD {name}: leave all standing, last {signal.ref_price} {money}"
        case _:
            return f"ABSTAIN on {name}: {signal.abstain_reason}, last {signal.ref_price} {money}"


def title(act: Act, settings: Settings) -> str:
    """Return a phase's heading: what is done, and what is to be seen."""
    fusion = settings.fusion
    first = next((candle.ts_close_ms for _, candle in act.bars), act.until_ms)
    days = f"{day_of(first)} to {day_of(act.until_ms)}"
    rate = act.steps / act.duration_s
    match act.phase:
        case Phase.PACED:
            return f"Paced: {act.steps} bars a symbol at {rate:g}/s, {days}, {fusion.permits} calls at once"
        case Phase.BURST:
            return (
                f"Burst: {act.duration_s:.0f} s at {rate:g} bars/s a symbol, {days}; newer bars replace those that wait (`conflated`), "
                "so that what is published stays fresh"
            )
        case Phase.OUTAGE:
            return f"Engine outage: {act.duration_s:.0f} s and a restart, {days}; triggers end `failed`, and no failure becomes a hold"
        case Phase.RECOVERY:
            return f"Recovery: {act.duration_s:.0f} s, {days}; prefixes are sent ahead to the empty engine"


def summary(report: Mapping[str, Any]) -> str:
    """Return the run in one sentence."""
    outcomes, latency = report["outcomes"], report["latency_ms"].get("total")
    parts = [f"{outcomes['published']} signals out of {report['triggers']} triggers in {report['duration_s']:.0f} s"]
    if latency is not None:
        parts.append(
            f"paced part: {latency['p50']:.0f} ms at the median, {latency['p95']:.0f} ms at p95 from record to acknowledged signal"
        )
    if report["prefix_hit_ratio"] is not None:
        parts.append(
            f"prefix hits {report['prefix_hit_ratio']:.1%} of the tokens behind signals, {report['prefix_hit_ratio_all']:.1%} of all calls"
        )
    return "; ".join(parts) + "."


def next_commands(bus: str) -> list[tuple[str, str]]:
    """Return commands worth trying after a run over `bus`, each with why."""
    real = "--bus kafka://127.0.0.1:9092 --redis redis://127.0.0.1:6379/0 --engine http://127.0.0.1:30000"
    there = f"AQUILINE_RUN_MODE=demo AQUILINE_BUS__URL={bus} .venv/bin/aquiline"
    around = (
        [(f"make up-local && make demo ARGS='{real}'", "the same through a real Kafka and Redis")]
        if bus == "memory://"
        else [
            (f"{there} topics describe", "what this run left on the topics, which are demo.*"),
            ("make down-local", "end Kafka, Redis and the simulator"),
        ]
    )
    return [
        *around,
        (".venv/bin/aquiline replay --verify demo-audit.jsonl", "every prompt of this run, built again from its log and checked"),
        (".venv/bin/aquiline backtest --report backtest.html", "thirteen years of the same stocks, and what the signals would have made"),
    ]
