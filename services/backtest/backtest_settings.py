"""The settings of a backtest: `--set` overrides what a backtest needs, which overrides the settings file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from services.backtest.feed import MODE
from services.backtest.request import RULES, SIMULATOR, BacktestRequest
from services.core.settings import Settings, SettingsError, load
from services.core.settings_assignments import assign
from services.market.book import check_plan
from services.strategy.folder import FEATURES, StrategyError, read


def backtest_settings(
    options: BacktestRequest, intervals: Sequence[str], built: Sequence[str], *, vision: bool, base: Mapping[str, Any] | None = None
) -> Settings:
    """Return the settings for data with these intervals, of which `built` are built from the fastest; raise SettingsError.

    `base` holds settings of section `fusion` that replace the defaults.
    """
    in_process = options.engine in {SIMULATOR, RULES}
    tables: dict[str, dict[str, Any]] = {
        "bus": {"url": "memory://"},
        "redis": {"url": "none://"},
        "engine": {"kind": "rules"} if options.engine == RULES else {} if options.engine == SIMULATOR else {"urls": [options.engine]},
        "market": {"aggregate": {intervals[0]: list(built)}},
        "fusion": {
            **(base or {}),
            "intervals": list(intervals),
            "start_from": "latest",
            # Nothing waits for a prefix here: pre-warming would only send it twice.
            "prewarm": False,
            **({} if vision else {"vision_wait_ms": 0}),
            # One call at a time makes a run reproducible to the byte, and these engines answer at once.
            **({"permits": 1, "deep_permits": 1} if in_process else {}),
        },
        "log": {"level": "warning"},
    }
    assign(tables, options.assignments)
    folder = _strategy_folder(options)
    if folder is not None and (folder / FEATURES).is_file():
        tables["market"].setdefault("features_file", str(folder / FEATURES))
    settings = load(Path(options.config) if options.config else None, {"run_mode": MODE.value, **tables})
    try:
        check_plan(settings.market.aggregate)
    except ValueError as error:
        raise SettingsError(f"market.aggregate: {error}") from error
    return settings


def intervals_of_strategy(options: BacktestRequest) -> list[str]:
    """Return the intervals of the strategy that the options name, fastest first; none where they name no strategy."""
    folder = _strategy_folder(options)
    try:
        return [] if folder is None else list(read(folder).intervals)
    except StrategyError as error:
        raise SettingsError(f"fusion.strategy: {error}") from error


def _strategy_folder(options: BacktestRequest) -> Path | None:
    tables: dict[str, dict[str, Any]] = {}
    assign(tables, options.assignments)
    named = tables.get("fusion", {}).get("strategy")
    return Path(named) if isinstance(named, str) else None


def named_after(settings: Settings, data: str) -> Settings:
    """Return the settings with a log id of their own, so that ids of different data never collide."""
    fusion = settings.fusion.model_copy(update={"log_id": f"backtest-{data}"})
    return settings.model_copy(update={"fusion": fusion})
