"""From the command's options to the settings, the plan and the engine of a run; refuses what cannot be played."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas import Candle, RunMode, interval_ms
from services.core.settings import Settings, SettingsError, load
from services.core.settings_assignments import assign
from services.demo.options import Options, Vision
from services.demo.plan import Plan, make_plan
from services.demo.simulator import SimulatorProcess
from services.feeds.samples import INTERVAL, SYMBOLS, load_stocks


@dataclass(frozen=True, slots=True)
class Demo:
    """A run that is ready to start. `simulator` is None when the engine is the user's own; files go to `folder`."""

    settings: Settings
    plan: Plan
    simulator: SimulatorProcess | None
    vision: Vision
    seed: int
    folder: Path
    verbose: bool = False
    notes: tuple[str, ...] = ()


def set_up(options: Options, folder: Path) -> Demo:
    """Return the run that `options` describe; raise SettingsError when it cannot be played."""
    own_engine = options.engine is None and not any(one.startswith(("engine.kind=", "engine.urls=")) for one in options.assignments)
    return Demo(
        settings=_settings(options),
        plan=make_plan(_stocks(options.symbols), options, outage=options.outage and own_engine),
        simulator=SimulatorProcess(seed=options.seed, time_scale=options.time_scale) if own_engine else None,
        vision=options.vision,
        seed=options.seed,
        folder=folder,
        verbose=options.verbose,
        notes=("no outage: the demo does not stop an engine that it did not start",) if options.outage and not own_engine else (),
    )


def _stocks(symbols: str) -> dict[str, list[Candle]]:
    names = [name.strip().upper() for name in symbols.split(",") if name.strip()]
    unknown = sorted(set(names) - SYMBOLS.keys())
    if unknown or not names:
        raise SettingsError(f"--symbols {symbols!r}: expected some of {', '.join(SYMBOLS)}, got {', '.join(unknown) or 'none'}")
    stocks = load_stocks(RunMode.DEMO)
    return {SYMBOLS[name]: stocks[SYMBOLS[name]] for name in dict.fromkeys(names)}


def _settings(options: Options) -> Settings:
    """Return the settings: `--set` overrides the demo's own, which override files and variables."""
    run_id = uuid.uuid4().hex[:8]
    intervals = [name.strip() for name in options.intervals.split(",")]
    if intervals[0] != INTERVAL:
        raise SettingsError(f"--intervals {options.intervals!r}: the bars are daily, so the first must be {INTERVAL}")
    sections: dict[str, dict[str, Any]] = {
        "bus": {"url": options.bus},
        "redis": {"url": options.redis},
        "engine": {"urls": [options.engine]} if options.engine else {},
        "market": {"group": f"aquiline-demo-{run_id}-market", "aggregate": {INTERVAL: intervals[1:]}},
        "vision": {"group": f"aquiline-demo-{run_id}-vision", "intervals": [INTERVAL]},
        "fusion": {
            # A new group and log id for each run: on Kafka, offsets continue where the last run ended, and ids must differ from its ids.
            "group": f"aquiline-demo-{run_id}-fusion",
            "log_id": f"demo-{run_id}",
            "intervals": intervals,
            "window_bars": options.window,
            "epoch_slots": options.epoch,
            "permits": options.permits,
            "min_bars": min(20, options.window),
            "min_gap_ms": 0 if options.min_gap_bars == 1 else options.min_gap_bars * interval_ms(INTERVAL),
            "vision_wait_ms": 0 if options.vision is Vision.NONE else 150,
            # A day passes in 667 ms here: a signal that is valid for a day would never expire.
            "entry_validity_ms": {INTERVAL: 3_000},
            "max_staleness_ms": 2_000,
            # The default limit suits markets; a fast --pace would exceed it.
            "rate_limit_per_min": 6_000,
        },
        "log": {"level": "info" if options.verbose else "warning"},
    }
    assign(sections, options.assignments)
    return load(None, {"run_mode": RunMode.DEMO.value, **sections})
