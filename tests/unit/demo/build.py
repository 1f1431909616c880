"""Bars, audit records and signals for tests of the demo."""

from __future__ import annotations

from uuid import UUID, uuid4

from schemas import AuditRecord, Candle, Outcome, RunMode, Signal
from schemas.examples import EXAMPLES
from services.demo.script import Script, Wanted, write_script

DAY_MS = 86_400_000
FIRST_MS = 1_325_462_400_000  # 2012-01-02T00:00Z


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


def script(wanted: Wanted, count: int = 400) -> Script:
    """Return a script for two symbols, one of which is listed late."""
    return write_script({"A.XNYS": bars("A.XNYS", count), "B.XNYS": bars("B.XNYS", count, listed_after=count - 60)}, wanted)


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
