"""Audit records and outcomes of two sides, for the tests of this folder."""

from __future__ import annotations

from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from schemas import Action, AsOf, AuditRecord, ExitReason, OffsetRef, Outcome, RunMode, SignalOutcome
from services.promotion.audit_summary import AuditSummary
from services.promotion.comparison import Criteria, Expected, compare
from services.promotion.comparison_result import Comparison
from services.promotion.decision_pairs import SideRecords

MINUTE = 60_000
START = 1_719_792_000_000
LIVE_VERSION, SHADOW_VERSION = "1" * 16, "2" * 16
LIVE = Expected("a" * 16, LIVE_VERSION, "aq-1")
SHADOW = Expected("b" * 16, SHADOW_VERSION, "aq-1")
LENIENT = Criteria(min_pairs=1, min_span_ms=0)
UNSCORED = {"outcomes", "matured pairs", "scored among them", "returns"}
"""The criteria that a comparison without positions does not meet."""


def ref(offset: int, topic: str = "market-features") -> OffsetRef:
    return OffsetRef(topic=topic, partition=0, offset=offset, ts_ms=START + offset * MINUTE, ts_event_ms=START + offset * MINUTE)


def audit(
    run_mode: RunMode,
    offset: int,
    action: Action | None = Action.HOLD,
    outcome: Outcome = Outcome.PUBLISHED,
    *,
    symbol: str = "BTC-USD.CBSE",
    vision: int | None = None,
    decision_ms: float = 100.0,
    **changes: Any,
) -> AuditRecord:
    """Return how the trigger that the market record at `offset` made has ended."""
    trigger_id = uuid5(NAMESPACE_URL, f"{symbol}/{offset}")
    published = outcome is Outcome.PUBLISHED
    asked = outcome is not Outcome.CONFLATED
    return AuditRecord(
        **{
            "schema_version": 1,
            "run_mode": run_mode,
            "trigger_id": trigger_id,
            "trigger_kind": "closed_bar",
            "trigger": ref(offset),
            "symbol": symbol,
            "interval": "1m",
            "mode": "fast",
            "outcome": outcome,
            "reason": None if published else "reason",
            "ts_done_ms": START + offset * MINUTE + 500,
            "signal_id": signal_id(symbol, offset) if published else None,
            "action": action if published else None,
            "as_of": AsOf(market=ref(offset), vision=None if vision is None else ref(vision, "vision-features")) if asked else None,
            "config_version": LIVE_VERSION if run_mode is RunMode.LIVE else SHADOW_VERSION,
            "prompt_version": "aq-1",
            "prompt_tokens": 1_000,
            "cached_tokens": 900,
            "source": "llm",
            "engine": "sglang@here:1",
            "model": "a model",
            "latency_ms": {"fold": 1.0, "queue": 2.0, "first_token": 20.0, "decision": decision_ms, "publish": 3.0},
            **changes,
        }
    )


def signal_id(symbol: str, offset: int) -> UUID:
    return uuid5(NAMESPACE_URL, f"signal {symbol}/{offset}")


def scored(run_mode: RunMode, offset: int, return_net: float | None, *, action: Action = Action.BUY) -> SignalOutcome:
    """Return what became of the signal of `offset`, five minutes later."""
    filled = return_net is not None
    return SignalOutcome(
        schema_version=1,
        run_mode=run_mode,
        signal_id=signal_id("BTC-USD.CBSE", offset),
        symbol="BTC-USD.CBSE",
        interval="1m",
        mode="fast",
        action=action,
        source="llm",
        vision="absent",
        conviction=0.5,
        exit_reason=ExitReason.HORIZON if filled else ExitReason.UNFILLED,
        ts_entry_ms=START + offset * MINUTE if filled else None,
        ts_exit_ms=START + (offset + 5) * MINUTE,
        entry="100.00" if filled else None,
        exit="101.00" if filled else None,
        return_net=return_net,
        bars_held=5,
    )


def trail(*audits: AuditRecord, outcomes: tuple[SignalOutcome, ...] = (), horizon_bars: int = 5) -> SideRecords:
    """Return a side whose views all hold for so many minutes."""
    horizons_ms = {one.signal_id: one.trigger.ts_event_ms + horizon_bars * MINUTE for one in audits if one.signal_id is not None}
    return SideRecords([AuditSummary.of(one) for one in audits], {one.signal_id: one for one in outcomes}, horizons_ms)


def bought(run_mode: RunMode, numbers: range, made: float = 0.001, **changes: Any) -> SideRecords:
    """Return a side that bought on every record but the last five, and whose signals are all scored."""
    audits = [audit(run_mode, number, Action.BUY if number < numbers[-1] - 5 else Action.HOLD, **changes) for number in numbers]
    return trail(*audits, outcomes=tuple(scored(run_mode, number, made) for number in numbers))


def compared(live: SideRecords, shadow: SideRecords, criteria: Criteria = LENIENT, symbols: tuple[str, ...] = ()) -> Comparison:
    return compare((live, shadow), (LIVE, SHADOW), symbols, criteria, START + 1_000 * MINUTE)
