"""From the demo's options to a run: the script, the settings, where logs go."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console

from schemas import Candle, RunMode, interval_ms
from services.core import logs
from services.core.settings import Settings, SettingsError, load
from services.demo.course import Run
from services.demo.engine import SimulatorProcess
from services.demo.loglines import LogLines
from services.demo.options import Options, Vision
from services.demo.screen import make_console
from services.demo.script import Wanted, write_script
from services.feeds.samples import INTERVAL, SYMBOLS, load_stocks


def prepare(options: Options, folder: Path) -> tuple[Run, Console, LogLines]:
    """Return the run that `options` ask for, which writes its files to `folder`; raise SettingsError when it cannot be done."""
    own_engine = options.engine is None and not any(one.startswith(("engine.kind=", "engine.urls=")) for one in options.assignments)
    wanted = Wanted(
        options.bars,
        options.pace,
        burst=options.burst,
        outage=options.outage and own_engine,
        start=options.start,
        history_from=options.history_from,
    )
    script = write_script(_stocks(options.symbols), wanted)
    settings = _settings(options)
    console = make_console()
    log_lines = LogLines(console, hold=not options.verbose)
    logs.configure(settings.log, service="demo", stream=log_lines)
    simulator = SimulatorProcess(seed=options.seed, time_scale=options.time_scale) if own_engine else None
    notes = ("the outage is left out: this engine is not the demo's own to kill",) if options.outage and not own_engine else ()
    return Run(settings, script, simulator, options.vision, options.seed, folder, notes), console, log_lines


def _stocks(symbols: str) -> dict[str, list[Candle]]:
    names = [name.strip().upper() for name in symbols.split(",") if name.strip()]
    unknown = sorted(set(names) - SYMBOLS.keys())
    if unknown or not names:
        raise SettingsError(f"--symbols {symbols!r}: {', '.join(unknown) or 'nothing'} is not among {', '.join(SYMBOLS)}")
    every = load_stocks(RunMode.DEMO)
    return {SYMBOLS[name]: every[SYMBOLS[name]] for name in dict.fromkeys(names)}


def _settings(options: Options) -> Settings:
    """Return the demo's settings: what is assigned goes before what the demo says, and that before files and variables."""
    run_id = uuid.uuid4().hex[:8]
    intervals = [name.strip() for name in options.intervals.split(",")]
    if intervals[0] != INTERVAL:
        raise SettingsError(f"--intervals {options.intervals!r}: the bars are daily, so the first must be {INTERVAL}")
    tables: dict[str, dict[str, Any]] = {
        "bus": {"url": options.bus},
        "redis": {"url": options.redis},
        "engine": {"urls": [options.engine]} if options.engine else {},
        "market": {"group": f"aquiline-demo-{run_id}-market", "aggregate": {INTERVAL: intervals[1:]}},
        "vision": {"group": f"aquiline-demo-{run_id}-vision", "intervals": [INTERVAL]},
        # A new group and a new log each time: on Kafka offsets go on where the last run ended, and ids must not meet its own.
        "fusion": {"group": f"aquiline-demo-{run_id}-fusion", "log_id": f"demo-{run_id}", **_fusion(options, intervals)},
        "log": {"level": "info" if options.verbose else "warning"},
    }
    for assignment in options.assignments:
        key, equals, value = assignment.partition("=")
        section, dot, name = key.strip().partition(".")
        if not (equals and dot and name):
            raise SettingsError(f"--set {assignment!r}: expected section.key=value, such as fusion.permits=3")
        tables.setdefault(section, {})[name] = _value(value)
    return load(None, {"run_mode": RunMode.DEMO.value, **tables})


def _fusion(options: Options, intervals: list[str]) -> dict[str, Any]:
    return {
        "intervals": intervals,
        "window_bars": options.window,
        "epoch_slots": options.epoch,
        "permits": options.permits,
        "min_bars": min(20, options.window),
        "min_gap_ms": 0 if options.min_gap_bars == 1 else options.min_gap_bars * interval_ms(INTERVAL),
        "vision_wait_ms": 0 if options.vision is Vision.NONE else 150,
        # A day passes in 667 ms here: what is good for a day would never be too old.
        "entry_validity_ms": {INTERVAL: 3_000},
        "max_staleness_ms": 2_000,
        # So that a faster pace is not throttled by a limit that is made for markets.
        "rate_limit_per_min": 6_000,
    }


def _value(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
