"""Turns this package's arguments into a backtest's plan, as the command's options are."""

from __future__ import annotations

import datetime as dt
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import structlog

from aquiline._bars import Bars, in_arguments
from aquiline._frames import NAME, since_1970_ms
from services.backtest.backtest_plan import BacktestPlan, plan_of_candles
from services.backtest.request import RULES, SIMULATOR, BacktestRequest
from services.core.settings import SettingsError

Values = Mapping[str, Any]
"""Settings by their dotted names (docs/configuration.md): `{"fusion.window_bars": 64, "scoring.cost_bps": 1}`."""
When = dt.datetime | int
"""A time with a zone, or milliseconds since 1970."""


def plan_of(
    bars: Bars,
    *,
    engine: str = RULES,
    strategy: str | Path | None = None,
    settings: Values | None = None,
    since: When | None = None,
    until: When | None = None,
) -> BacktestPlan:
    """Return the plan to play `bars`; raise ValueError in this package's terms."""
    if engine not in {RULES, SIMULATOR} and not engine.startswith(("http://", "https://")):
        raise ValueError(
            f"engine is {engine!r}; '{RULES}', '{SIMULATOR}' or the address of an engine such as 'http://127.0.0.1:30000' is expected"
        )
    given = dict(settings or {})
    if strategy is not None:
        given["fusion.strategy"] = str(strategy)
    request = BacktestRequest(
        data=(NAME,),
        symbol=None,
        interval=None,
        calendar="",
        price_increment=None,
        currency="",
        price_adjustment="",
        intervals=None,
        vision=bars.vision,
        since_ms=since_1970_ms(since, "since"),
        until_ms=since_1970_ms(until, "until"),
        engine=engine,
        assignments=tuple(f"{name}={_text(value)}" for name, value in given.items()),
        config=None,
    )
    try:
        return plan_of_candles(request, bars.data)
    except (SettingsError, ValueError) as error:
        raise ValueError(in_arguments(str(error))) from None


def quiet() -> None:
    """Log warnings alone, to standard error, unless the program that uses this package has set up logging."""
    if not structlog.is_configured():
        structlog.configure(
            wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
            logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value) if isinstance(value, Path) else orjson.dumps(value).decode()
