"""Bars, plans and results for tests of the demo."""

from __future__ import annotations

import dataclasses
import datetime as dt

from schemas import Candle, RunMode
from services.core.settings import load
from services.demo.options import Options
from services.demo.plan import Plan, plan_load
from services.demo.report import ActResult
from services.demo.setup import LOAD_ACT, Act
from services.inference.engine import EngineInfo
from services.pipeline.outputs import Outputs

DAY_MS = 86_400_000
FIRST_MS = 1_325_462_400_000  # 2012-01-02T00:00Z
DEFAULTS = Options(model_bars=0, bars=80, console=False)


def bars(symbol: str, count: int, *, listed_after: int = 0) -> list[Candle]:
    """Return daily bars, the first of them `listed_after` days after the others' first."""
    return [
        Candle(
            schema_version=1,
            run_mode=RunMode.DEMO,
            symbol=symbol,
            interval="1d",
            ts_open_ms=FIRST_MS + day * DAY_MS,
            ts_close_ms=FIRST_MS + (day + 1) * DAY_MS,
            open=10.0,
            high=11.0,
            low=9.0,
            close=10.0,
            volume=1_000.0,
            closed=True,
        )
        for day in range(listed_after, count)
    ]


def plan(count: int = 400, **changes: object) -> Plan:
    """Return a plan for two symbols, one of which is listed late; `changes` are to the default options."""
    options = dataclasses.replace(DEFAULTS, history_from=dt.datetime(2000, 1, 1, tzinfo=dt.UTC))
    options = dataclasses.replace(options, **changes)  # type: ignore[arg-type]
    stocks = {"A.XNYS": bars("A.XNYS", count), "B.XNYS": bars("B.XNYS", count, listed_after=count - 60)}
    return plan_load(stocks, options, outage=options.outage)


def result(outputs: Outputs | None = None) -> ActResult:
    """Return the result of an act that plays `plan()`, set up and not yet played."""
    settings = load(None, {"run_mode": "demo"})
    engine = EngineInfo("sglang@x", "simulator", "m")
    return ActResult(Act(LOAD_ACT, settings, plan(), None), settings, engine, outputs or Outputs(), setup_s=1.0)
