"""Records of the topics as a worker writes them, made small."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid5

from schemas import AuditRecord, Cancel, CancelReason, MarketFeatures, Message, Outcome, RunMode, Signal, Topic, topic_name
from services.core.bus import Record

NAMESPACE = UUID("8b9c3b5e-0f3b-4a8a-9a55-2d1f0c7b6a11")
NOW_MS = 1_790_000_000_000
SYMBOL = "BTC-USD.CBSE"


def trigger_id(number: int) -> UUID:
    """Return the id of the `number`-th trigger."""
    return uuid5(NAMESPACE, str(number))


def signal_id(number: int) -> UUID:
    """Return the id of its signal."""
    return uuid5(trigger_id(number), "fast")


def _ref(number: int, topic: Topic = Topic.MARKET_FEATURES) -> dict[str, Any]:
    return {
        "topic": topic_name(topic, RunMode.DEMO),
        "partition": 0,
        "offset": number,
        "ts_ms": NOW_MS + number,
        "ts_event_ms": NOW_MS + number,
    }


def audit(number: int, outcome: Outcome = Outcome.PUBLISHED, **changes: Any) -> AuditRecord:
    """Return the audit record of a trigger; one with a signal unless another outcome is given."""
    published = outcome is Outcome.PUBLISHED
    values: dict[str, Any] = {
        "schema_version": 1,
        "run_mode": RunMode.DEMO,
        "trigger_id": trigger_id(number),
        "trigger_kind": "closed_bar",
        "trigger": _ref(number),
        "symbol": SYMBOL,
        "interval": "1m",
        "mode": "fast",
        "outcome": outcome,
        "reason": None if published else "halted",
        "ts_done_ms": NOW_MS + number + 300,
        "config_version": "0123456789abcdef",
        "latency_ms": {"fold": 10.0, "decision": 250.0, "publish": 40.0} if published else {"fold": 10.0},
        **({"signal_id": signal_id(number), "action": "buy", "prompt_tokens": 1_000, "cached_tokens": 900} if published else {}),
        **changes,
    }
    return AuditRecord.model_validate(values)


def signal(number: int, **changes: Any) -> Signal:
    """Return the signal of a trigger."""
    return Signal.model_validate(
        {
            "schema_version": 1,
            "run_mode": RunMode.DEMO,
            "symbol": SYMBOL,
            "interval": "1m",
            "mode": "fast",
            "signal_id": signal_id(number),
            "trigger_id": trigger_id(number),
            "ts_decided_ms": NOW_MS + number + 260,
            "as_of": {"market": _ref(number)},
            "valid_until_ms": NOW_MS + number + 3_000,
            "action": "buy",
            "conviction": 0.6,
            "horizon_bars": 5,
            "horizon_end_ms": NOW_MS + number + 300_000,
            "ref_price": "100.00",
            "entry_type": "limit",
            "entry": "100.10",
            "stop": "99.00",
            "target": "102.00",
            "currency": "USD",
            "vision": "absent",
            "source": "simulator",
            "degraded": False,
            "engine": "sglang",
            "model": "a model",
            "prompt_version": "1",
            "prompt_hash": "0" * 64,
            "epoch": "0" * 12,
            "prompt_tokens": 1_000,
            "latency_ms": {},
            **changes,
        }
    )


def cancel(number: int) -> Cancel:
    """Return a cancel of the signal of a trigger."""
    return Cancel(
        schema_version=1,
        run_mode=RunMode.DEMO,
        symbol=SYMBOL,
        interval="1m",
        mode="fast",
        signal_id=signal_id(number),
        ts_decided_ms=NOW_MS,
        kind="cancel",
        reason=CancelReason.HALTED,
    )


def bar(number: int, symbol: str = SYMBOL, **changes: Any) -> MarketFeatures:
    """Return the `number`-th minute's bar."""
    close = 100 + number % 7
    return MarketFeatures.model_validate(
        {
            "schema_version": 1,
            "run_mode": RunMode.DEMO,
            "symbol": symbol,
            "interval": "1m",
            "ts_open_ms": NOW_MS + number * 60_000,
            "ts_close_ms": NOW_MS + (number + 1) * 60_000,
            "open": 100.0,
            "high": close + 1.0,
            "low": 99.0,
            "close": float(close),
            "volume": 10.0,
            "closed": True,
            "features": {"atr": 1.0, "ema_fast": 100.5},
            **changes,
        }
    )


def record(topic: Topic, message: Message | bytes, offset: int = 0, run_mode: RunMode = RunMode.DEMO) -> Record:
    """Return a message, or any bytes, as a record of a topic."""
    value = message if isinstance(message, bytes) else message.encode()
    return Record(topic_name(topic, run_mode), 0, offset, NOW_MS + offset, SYMBOL.encode(), value)
