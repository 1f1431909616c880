"""From the command's options to the acts of a run, each with its engine, its worker's settings and its bars; refuses what cannot run."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from schemas import Candle, RunMode, interval_ms
from services.core.clock import SystemClock
from services.core.settings import Settings, SettingsError, load
from services.core.settings_assignments import assign
from services.demo.options import Options
from services.demo.plan import Plan, plan_load, plan_model
from services.feeds.samples import INTERVAL, SYMBOLS, load_stocks
from services.fusion.service import engine_info
from services.inference.engine import EngineError, EngineInfo
from services.inference.own_engine import OwnEngine, local_model, simulator
from services.strategy.folder import FEATURES

MODEL_SYMBOLS: Final = 2
"""Symbols of the model's act: before its first bar each costs the CPU some 12 s of prefill."""
MODEL_CONTEXT_TOKENS: Final = 4_096
MODEL_FUSION: Final[dict[str, Any]] = {
    "intervals": [INTERVAL],
    "window_bars": 35,
    "epoch_slots": 34,
    # As many rationales are written at once as there are permits: with one, the second symbol's would be left out.
    "permits": 2,
    "mode": "fast",
    "rationale": "short",
    "entry_validity_ms": {INTERVAL: 60_000},
    "max_staleness_ms": 50_000,
}
"""For a CPU that reads some 100 tokens a second: prompts of 2,500 tokens, a line and a sentence asked for, deadlines to match.

With these epochs, the act that the options' defaults give lies within one epoch of both its symbols.
"""
MODEL_ACT: Final = "model"
LOAD_ACT: Final = "load"


@dataclass(frozen=True, slots=True)
class Act:
    """One part of the demo: an engine decides on the bars of a plan. `engine` is None when it is the user's own."""

    name: str
    settings: Settings
    plan: Plan
    engine: OwnEngine | None


@dataclass(frozen=True, slots=True)
class Demo:
    """A run that is ready to start: its acts share one bus. Files go to `folder`."""

    acts: Sequence[Act]
    options: Options
    folder: Path
    notes: Sequence[str]


def set_up(options: Options, folder: Path) -> Demo:
    """Return the run that `options` describe; raise SettingsError when it cannot run."""
    sections, notes = _sections(options), []
    before = sections["fusion"].copy()
    assign(sections, options.assignments or ())
    own_engine = not sections["engine"].keys() & {"kind", "urls"}
    stocks = _stocks(options.symbols)
    plan = plan_load(stocks, options, outage=options.outage and own_engine)
    engine = simulator(seed=options.seed, time_scale=options.time_scale) if own_engine else None
    acts = [Act(LOAD_ACT, load(None, {"run_mode": "demo", **sections}), plan, engine)]
    if own_engine and options.model_bars:
        # What `--set` says of the worker is meant for the act at a market's pace.
        sections["fusion"] = before | MODEL_FUSION | {"group": f"{before['group']}-{MODEL_ACT}"}
        model = local_model(symbols=MODEL_SYMBOLS, context_tokens=MODEL_CONTEXT_TOKENS)
        model_plan = plan_model(stocks, options, plan, MODEL_SYMBOLS)
        acts.insert(0, Act(MODEL_ACT, load(None, {"run_mode": "demo", **sections}), model_plan, model))
    if options.strategy is not None:
        notes.append(
            f"strategy {options.strategy}: intervals, windows and deadlines are the demo's, as its bars are daily and a day takes less "
            "than a second; words, facts, columns, levels and limits are the strategy's"
        )
    if options.outage and not own_engine:
        notes.append("no outage: the demo does not stop an engine that it did not start")
    return Demo(acts, options, folder, notes)


async def engine_of(settings: Settings) -> EngineInfo:
    """Return what the engine says of itself; raise SettingsError when it does not answer."""
    try:
        return await engine_info(settings.engine, SystemClock())
    except EngineError as error:
        raise SettingsError(
            f"the engine at {' '.join(settings.engine.urls)} does not answer: {error.detail}. "
            "Start it, or leave --engine out and the demo starts its own"
        ) from error


def _stocks(symbols: str) -> dict[str, list[Candle]]:
    names = [name.strip().upper() for name in symbols.split(",") if name.strip()]
    unknown = sorted(set(names) - SYMBOLS.keys())
    if unknown or not names:
        raise SettingsError(f"--symbols {symbols!r}: expected some of {', '.join(SYMBOLS)}, got {', '.join(unknown) or 'none'}")
    stocks = load_stocks(RunMode.DEMO)
    return {SYMBOLS[name]: stocks[SYMBOLS[name]] for name in dict.fromkeys(names)}


def _sections(options: Options) -> dict[str, dict[str, Any]]:
    """Return the demo's own settings, which override files and variables and are overridden by `--set`."""
    run_id = uuid.uuid4().hex[:8]
    intervals = [name.strip() for name in options.intervals.split(",")]
    if intervals[0] != INTERVAL:
        raise SettingsError(f"--intervals {options.intervals!r}: the bars are daily, so the first must be {INTERVAL}")
    fusion: dict[str, Any] = {
        # A new group and log id for each run: on Kafka, offsets continue where the last run ended, and ids must differ from its ids.
        "group": f"aquiline-demo-{run_id}-fusion",
        "log_id": f"demo-{run_id}",
        "intervals": intervals,
        "window_bars": options.window,
        "epoch_slots": options.epoch,
        "permits": options.permits,
        "vision_wait_ms": 0 if options.vision == "none" else 150,
        # A day passes in 667 ms here: a signal that is valid for a day would never expire.
        "entry_validity_ms": {INTERVAL: 3_000},
        "max_staleness_ms": 2_000,
        # The default limit suits markets; a fast --pace would exceed it.
        "rate_limit_per_min": 6_000,
    }
    market: dict[str, Any] = {"group": f"aquiline-demo-{run_id}-market", "aggregate": {INTERVAL: intervals[1:]}}
    if options.strategy is None:
        fusion |= {"min_bars": min(20, options.window), "min_gap_ms": 0}
    else:
        fusion |= {"strategy": options.strategy, "trigger_intervals": [], "slow_windows": {}}
        if (features := Path(options.strategy) / FEATURES).is_file():
            market["features_file"] = str(features)
    if options.min_gap_bars > 1:
        fusion["min_gap_ms"] = options.min_gap_bars * interval_ms(INTERVAL)
    return {
        "bus": {"url": options.bus},
        "redis": {"url": options.redis},
        "engine": {"urls": [options.engine]} if options.engine else {},
        "market": market,
        "vision": {"group": f"aquiline-demo-{run_id}-vision", "intervals": [INTERVAL]},
        "fusion": fusion,
        "log": {"level": "info" if options.verbose else "error"},
    }
