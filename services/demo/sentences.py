"""The demo's sentences: banner, headings, one for each signal and each other outcome, summary, and commands to try next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from schemas import Action, AuditRecord, Outcome, Signal
from services.core.settings import Settings
from services.demo.plan import Phase, PhasePlan, day_of
from services.demo.results import total_ms
from services.inference.engine import EngineInfo

_NO_ADVICE: Final = "the prices are old. Nothing on this screen is advice."
_DAY_MS: Final = 86_400_000


def banner(engine: EngineInfo, *, real_model: bool) -> str:
    """Return the banner of an act: who answers, and that it is no advice; `real_model` is the demo's own small model."""
    if real_model:
        return f"DEMO: {engine.model} answers, a real language model that never learned to trade; {_NO_ADVICE}"
    if engine.source == "llm":
        return f"DEMO: the model behind {engine.name} answers; {_NO_ADVICE}"
    return f"SIMULATOR / DEMO: fixed rules answer, no model does; {_NO_ADVICE}"


def heading(number: int, acts: int, engine: EngineInfo, *, real_model: bool) -> str:
    """Return the heading of an act."""
    what = (
        f"a real model decides: {engine.model} on this machine's CPU, through llama.cpp"
        if real_model
        else f"load, burst, outage and recovery, with {engine.model}"
    )
    return f"Act {number} of {acts}: {what}"


def signal_sentence(signal: Signal, audit: AuditRecord) -> str:
    """Return a published signal as a sentence."""
    valid_s = (signal.valid_until_ms - signal.as_of.market.ts_ms) / 1000
    parts = [f"{_decision(signal)}; valid {valid_s:g} s"]
    if signal.conviction is not None:
        parts.append(f"conviction {signal.conviction:.2f}, {signal.horizon_bars} bars")
    stale = signal.vision == "stale" and signal.vision_age_ms is not None
    parts.append(f"chart {signal.vision}" + (f" by {(signal.vision_age_ms or 0) / _DAY_MS:.0f} d" if stale else ""))
    parts.append(f"{total_ms(audit):.0f} ms")
    if audit.prompt_tokens and audit.cached_tokens is not None:
        parts.append(f"{audit.cached_tokens / audit.prompt_tokens:.0%} cached")
    return ", ".join(parts)


def ending_sentence(audit: AuditRecord) -> str:
    """Return why a trigger ended without a signal."""
    match audit.outcome:
        case Outcome.FAILED:
            why = "the engine gave no usable answer; no signal is published, and a failure never becomes a hold"
        case Outcome.BLOCKED:
            why = audit.detail or "a rule of the guard forbids it"
        case Outcome.STALE:
            why = "too old to act on, so no signal is published"
        case _:
            why = "a newer bar took its place in the queue"
    return f"{audit.outcome.value} ({audit.reason or ''}): {why}"


def _decision(signal: Signal) -> str:
    name, money = signal.symbol, signal.currency
    match signal.action:
        case Action.BUY | Action.SELL:
            limit = "up to" if signal.action is Action.BUY else "down to"
            side = signal.action.value.upper()
            return f"{side} {name} {limit} {signal.entry} {money}, stop {signal.stop}, target {signal.target}"
        case Action.EXIT:
            return f"EXIT {name}: close an open position, last {signal.ref_price} {money}"
        case Action.HOLD:
            return f"HOLD {name}: change nothing, last {signal.ref_price} {money}"
        case _:
            return f"ABSTAIN on {name}: {signal.abstain_reason}, last {signal.ref_price} {money}"


def title(plan: PhasePlan, settings: Settings) -> str:
    """Return a phase's heading: what happens, and what to look for."""
    first = next((candle.ts_close_ms for _, candle in plan.bars), plan.until_ms)
    days = f"{day_of(first)} to {day_of(plan.until_ms)}"
    rate, seconds = plan.steps / plan.duration_s, plan.duration_s
    if plan.in_step:
        return f"In step: {plan.steps} bars a symbol, {days}; each waits until those before it are decided, {seconds:.0f} s at most"
    match plan.phase:
        case Phase.PACED:
            return f"Paced: {plan.steps} bars a symbol at {rate:g}/s, {days}, {settings.fusion.permits} calls at once"
        case Phase.BURST:
            return f"Burst: {seconds:.0f} s at {rate:g} bars/s a symbol, {days}; newer bars replace queued ones (`conflated`)"
        case Phase.OUTAGE:
            return f"Engine outage: {seconds:.0f} s and a restart, {days}; triggers end `failed`, and no failure becomes a hold"
        case Phase.RECOVERY:
            return f"Recovery: {seconds:.0f} s, {days}; the prefixes are sent ahead to the engine's empty cache"


def summary(report: Mapping[str, Any]) -> str:
    """Return an act in one sentence."""
    latency = report["latency_ms"].get("total")
    published, seconds = report["outcomes"]["published"], report["duration_s"]
    parts = [f"{published} signals of {report['engine']['model']} from {report['triggers']} triggers in {seconds:.0f} s"]
    if latency is not None:
        parts.append(f"paced phase: {latency['p50']:.0f} ms median and {latency['p95']:.0f} ms p95 from record to acknowledged signal")
    if report["prefix_hit_ratio"] is not None:
        parts.append(
            f"prefix hits: {report['prefix_hit_ratio']:.1%} of the tokens behind signals, {report['prefix_hit_ratio_all']:.1%} of all calls"
        )
    return "; ".join(parts) + "."


def next_commands(bus: str) -> list[tuple[str, str]]:
    """Return commands to try after a run over `bus`, each with what it does."""
    local = "--bus kafka://127.0.0.1:9092 --redis redis://127.0.0.1:6379/0 --engine http://127.0.0.1:30000"
    if bus == "memory://":
        first = [(f"make up-local && make demo ARGS='{local}'", "the same through a real Kafka and Redis")]
    else:
        topics = f"AQUILINE_RUN_MODE=demo AQUILINE_BUS__URL={bus} .venv/bin/aquiline topics describe"
        first = [(topics, "list this run's topics, demo.*"), ("make down-local", "stop Kafka, Redis and the simulator")]
    return [
        *first,
        (".venv/bin/aquiline replay --verify demo-audit.jsonl", "rebuild every prompt of this run from its log and check its hash"),
        (".venv/bin/aquiline backtest --report backtest.html", "thirteen years of the same stocks, and what the signals would have earned"),
    ]
