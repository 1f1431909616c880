"""The demo's sentences: banner, headings, one for each signal and each other outcome, summary, and commands to try next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from schemas import Action, AuditRecord, Outcome, Signal
from services.core.settings import Settings
from services.demo.plan import Phase, PhasePlan, day_of
from services.inference.engine import EngineInfo

NO_ADVICE: Final = "the prices are old. Nothing on this screen is advice."
_DAY_MS: Final = 86_400_000


def opening(engine: EngineInfo, *, real_model: bool) -> tuple[str, str]:
    """Return what an act shows, and its banner: who answers, and that it is no advice. `real_model` is the demo's own small model."""
    what = f"load, burst, outage and recovery, with {engine.model}"
    if real_model:
        what = f"a real model decides: {engine.model} on this machine's CPU, through llama.cpp"
        who = f"DEMO: {engine.model} answers, a real language model that never learned to trade"
    elif engine.source == "llm":
        who = f"DEMO: the model behind {engine.name} answers"
    else:
        who = "SIMULATOR / DEMO: fixed rules answer, no model does"
    return what, f"{who}; {NO_ADVICE}"


def signal_sentence(signal: Signal, audit: AuditRecord) -> str:
    """Return a published signal as a sentence."""
    valid_s = (signal.valid_until_ms - signal.as_of.market.ts_ms) / 1000
    parts = [f"{_decision(signal)}; valid {valid_s:g} s"]
    if signal.conviction is not None:
        parts.append(f"conviction {signal.conviction:.2f}, {signal.horizon_bars} bars")
    age_ms = signal.vision_age_ms if signal.vision == "stale" else None
    parts.append(f"chart {signal.vision}" + ("" if age_ms is None else f" by {age_ms / _DAY_MS:.0f} d"))
    parts.append(f"{audit.total_ms:.0f} ms")
    if audit.prompt_tokens and audit.cached_tokens is not None:
        parts.append(f"{audit.cached_tokens / audit.prompt_tokens:.0%} cached")
    return ", ".join(parts)


def _decision(signal: Signal) -> str:
    name, money, last = signal.symbol, signal.currency, f"last {signal.ref_price} {signal.currency}"
    match signal.action:
        case Action.EXIT:
            return f"EXIT {name}: close an open position, {last}"
        case Action.HOLD:
            return f"HOLD {name}: change nothing, {last}"
        case Action.ABSTAIN:
            return f"ABSTAIN on {name}: {signal.abstain_reason}, {last}"
        case side:
            limit = "up to" if side is Action.BUY else "down to"
            return f"{side.value.upper()} {name} {limit} {signal.entry} {money}, stop {signal.stop}, target {signal.target}"


def ending_sentence(audit: AuditRecord) -> str:
    """Return why a trigger ended without a signal."""
    why = {
        Outcome.FAILED: "the engine gave no usable answer; no signal is published, and a failure never becomes a hold",
        Outcome.BLOCKED: audit.detail or "a rule of the guard forbids it",
        Outcome.STALE: "too old to act on, so no signal is published",
    }
    return f"{audit.outcome.value} ({audit.reason or ''}): {why.get(audit.outcome, 'a newer bar took its place in the queue')}"


def title(plan: PhasePlan, settings: Settings) -> str:
    """Return a phase's heading: what happens, and what to look for."""
    first = next((candle.ts_close_ms for _, candle in plan.bars), plan.until_ms)
    days = f"{day_of(first)} to {day_of(plan.until_ms)}"
    rate, seconds = plan.steps / plan.duration_s, plan.duration_s
    if plan.in_step:
        return f"In step: {plan.steps} bars a symbol, {days}; each waits until those before it are decided, {seconds:.0f} s at most"
    return {
        Phase.PACED: f"Paced: {plan.steps} bars a symbol at {rate:g}/s, {days}, {settings.fusion.permits} calls at once",
        Phase.BURST: f"Burst: {seconds:.0f} s at {rate:g} bars/s a symbol, {days}; newer bars replace queued ones (`conflated`)",
        Phase.OUTAGE: f"Engine outage: {seconds:.0f} s and a restart, {days}; triggers end `failed`, and no failure becomes a hold",
        Phase.RECOVERY: f"Recovery: {seconds:.0f} s, {days}; the prefixes are sent ahead to the engine's empty cache",
    }[plan.phase]


def summary(report: Mapping[str, Any]) -> str:
    """Return an act in one sentence."""
    published, latency, hits = report["outcomes"]["published"], report["latency_ms"].get("total"), report["prefix_hit_ratio"]
    said = f"{published} signals of {report['engine']['model']} from {report['triggers']} triggers in {report['duration_s']:.0f} s"
    if latency is not None:
        said += f"; paced phase: {latency['p50']:.0f} ms median and {latency['p95']:.0f} ms p95 from record to acknowledged signal"
    if hits is not None:
        said += f"; prefix hits: {hits:.1%} of the tokens behind signals, {report['prefix_hit_ratio_all']:.1%} of all calls"
    return said + "."


def next_commands(bus: str) -> list[tuple[str, str]]:
    """Return commands to try after a run over `bus`, each with what it does."""
    local = "--bus kafka://127.0.0.1:9092 --redis redis://127.0.0.1:6379/0 --engine http://127.0.0.1:30000"
    first = [(f"make up-local && make demo ARGS='{local}'", "the same through a real Kafka and Redis")]
    if bus != "memory://":
        topics = f"AQUILINE_RUN_MODE=demo AQUILINE_BUS__URL={bus} .venv/bin/aquiline topics describe"
        first = [(topics, "list this run's topics, demo.*"), ("make down-local", "stop Kafka, Redis and the simulator")]
    return [
        *first,
        (".venv/bin/aquiline replay --verify demo-audit.jsonl", "rebuild every prompt of this run from its log and check its hash"),
        (".venv/bin/aquiline backtest --report backtest.html", "thirteen years of the same stocks, and what the signals would have earned"),
    ]
