"""Bars, audit records and signals for tests of the demo."""

from __future__ import annotations

import dataclasses
import datetime as dt
from uuid import UUID, uuid4

from schemas import AuditRecord, Candle, Outcome, RunMode, Signal
from schemas.examples import EXAMPLES
from services.demo.options import Options, Vision
from services.demo.plan import Plan, plan_load

DAY_MS = 86_400_000
FIRST_MS = 1_325_462_400_000  # 2012-01-02T00:00Z
DEFAULTS = Options(
    symbols="AAPL,FB,GOOG,IBM,MSFT",
    model_bars=0,
    bars=80,
    pace=1.5,
    start=None,
    history_from=dt.date(2009, 1, 1),
    burst=True,
    outage=True,
    vision=Vision.RECORDED,
    intervals="1d,1w",
    window=256,
    epoch=64,
    permits=5,
    min_gap_bars=1,
    bus="memory://",
    redis="memory://",
    engine=None,
    time_scale=1.0,
    assignments=(),
    seed=0,
    console=False,
    strategy=None,
    verbose=False,
)


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
    options = dataclasses.replace(DEFAULTS, history_from=dt.date(2000, 1, 1))
    options = dataclasses.replace(options, **changes)  # type: ignore[arg-type]
    stocks = {"A.XNYS": bars("A.XNYS", count), "B.XNYS": bars("B.XNYS", count, listed_after=count - 60)}
    return plan_load(stocks, options, outage=options.outage)


def audit(outcome: Outcome = Outcome.PUBLISHED, **changes: object) -> AuditRecord:
    """Return the audit record of a trigger of its own."""
    example = EXAMPLES[AuditRecord]
    assert isinstance(example, AuditRecord)
    published = outcome is Outcome.PUBLISHED
    own: dict[str, object] = {"trigger_id": uuid4(), "outcome": outcome, "signal_id": uuid4() if published else None, "reason": None}
    return example.model_copy(update=own | changes)


def signal(signal_id: UUID | None, **changes: object) -> Signal:
    """Return a signal."""
    example = EXAMPLES[Signal]
    assert isinstance(example, Signal)
    return example.model_copy(update={"signal_id": signal_id, **changes})
