"""Signals, cancels and bars of one symbol for the tests of this folder: minutes from START, and prices about 100."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID, uuid5

from schemas import Cancel, CancelReason, Dividend, InstrumentEvent, MarketFeatures, RunMode, Signal, SignalOutcome, interval_ms
from services.core.calendar import ALWAYS_OPEN, SessionCalendar
from services.scoring.fill_rules import FillRules
from services.scoring.judge import Judge

MODE = RunMode.DEMO
SYMBOL = "BTC-USD.CBSE"
MINUTE = 60_000
START = 1_719_792_000_000
"""2024-07-01T00:00Z, a Monday."""
FREE = FillRules(cost_bps=0.0, slippage_bps=0.0)
NAMESPACE = UUID(int=2)

Move = Signal | Cancel | MarketFeatures | InstrumentEvent | Dividend


def at(minute: float) -> int:
    return START + round(minute * MINUTE)


def bar(number: int, prices: str, **fields: Any) -> MarketFeatures:
    """Return minute bar `number`, which opens at that minute; `prices` are its open, high, low and close."""
    opening, high, low, close = map(float, prices.split())
    return MarketFeatures.model_validate(
        {
            "schema_version": 1,
            "run_mode": MODE,
            "symbol": SYMBOL,
            "interval": "1m",
            "ts_open_ms": at(number),
            "ts_close_ms": at(number + 1),
            "open": opening,
            "high": high,
            "low": low,
            "close": close,
            "volume": 1.0,
            "closed": True,
            "features": {},
        }
        | fields
    )


def bars(*prices: str) -> list[Move]:
    """Return minute bars from START on."""
    return [bar(number, one) for number, one in enumerate(prices)]


def signal(action: str = "buy", minute: int = 0, **fields: Any) -> Signal:
    """Return a signal that stands at `minute` after START, at market, entry 100.5, stop 99, target 102, for five bars."""
    sell = action == "sell"
    interval = fields.get("interval", "1m")
    horizon = fields.get("horizon_bars", 5)
    as_of_ms = fields.pop("as_of_ms", at(minute))
    values: dict[str, Any] = {
        "schema_version": 1,
        "run_mode": MODE,
        "symbol": SYMBOL,
        "interval": interval,
        "mode": "fast",
        "signal_id": uuid5(NAMESPACE, f"{action} {minute} {json.dumps(fields, default=str, sort_keys=True)}"),
        "ts_decided_ms": as_of_ms + 700,
        "trigger_id": UUID(int=3),
        "as_of": {
            "market": {"topic": "demo.market-features", "partition": 0, "offset": minute, "ts_ms": as_of_ms, "ts_event_ms": as_of_ms}
        },
        "valid_until_ms": as_of_ms + 3_000,
        "action": action,
        "conviction": 0.6,
        "horizon_bars": horizon,
        "horizon_end_ms": as_of_ms + horizon * interval_ms(interval),
        "ref_price": "100.00",
        "currency": "USD",
        "vision": "fresh",
        "vision_age_ms": 0,
        "source": "simulator",
        "degraded": False,
        "engine": "simulator",
        "model": "simulator",
        "prompt_version": "1",
        "prompt_hash": "0" * 64,
        "epoch": "0" * 12,
        "prompt_tokens": 1,
        "latency_ms": {},
    }
    if action in {"buy", "sell"}:
        values |= {
            "entry_type": "market",
            "entry": "99.50" if sell else "100.50",
            "stop": "101.00" if sell else "99.00",
            "target": "98.00" if sell else "102.00",
        }
    return Signal.model_validate(values | fields)


def cancel(of: Signal, minute: float, reason: CancelReason = CancelReason.HALTED) -> Cancel:
    return Cancel(
        schema_version=1,
        run_mode=MODE,
        symbol=of.symbol,
        interval=of.interval,
        mode=of.mode,
        signal_id=of.signal_id,
        ts_decided_ms=at(minute),
        reason=reason,
    )


def split(effective_ms: int, ratio: float) -> InstrumentEvent:
    return InstrumentEvent(schema_version=1, run_mode=MODE, symbol=SYMBOL, event="split", ratio=ratio, effective_ms=effective_ms)


def dividend(effective_ms: int, amount: float) -> Dividend:
    return Dividend(schema_version=1, run_mode=MODE, symbol=SYMBOL, event="dividend", amount=amount, effective_ms=effective_ms)


def judge(costs: FillRules = FREE, calendar: str = ALWAYS_OPEN) -> Judge:
    return Judge(costs, SessionCalendar.of(calendar))


def take(one: Judge, move: Move) -> list[SignalOutcome]:
    if isinstance(move, Signal):
        return one.signal(move)
    if isinstance(move, Cancel):
        return one.cancel(move)
    return one.bar(move) if isinstance(move, MarketFeatures) else one.restatement(move)


def feed(one: Judge, moves: Iterable[Move]) -> list[SignalOutcome]:
    return [outcome for move in moves for outcome in take(one, move)]


def only(outcomes: Sequence[SignalOutcome]) -> SignalOutcome:
    (outcome,) = outcomes
    return outcome
