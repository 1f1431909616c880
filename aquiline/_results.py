"""Results as columns: features, prompts, decisions and outcomes, one row each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from aquiline._bars import bar_columns
from aquiline._frames import NUMBER, TEXT, TIME, WHOLE, moment
from schemas import AuditRecord, Cancel, MarketFeatures, Signal, SignalOutcome
from services.backtest.feed_prompts import FeedPrompt

Columns = dict[str, tuple[Any, list[Any]]]
PROBABILITIES: Final = {"p_buy": "buy", "p_sell": "sell", "p_exit": "exit", "p_hold": "hold"}


def feature_columns(bars: Sequence[MarketFeatures]) -> Columns:
    """Return bars with their features, in the order in which the features first come."""
    names = list(dict.fromkeys(name for bar in bars for name in bar.features))
    return bar_columns(bars) | {name: (NUMBER, [bar.features.get(name) for bar in bars]) for name in names}


def prompt_columns(prompts: Sequence[FeedPrompt]) -> Columns:
    """Return prompts with their tokens counted."""
    triggers = [one.trigger for one in prompts]
    return {
        "symbol": (TEXT, [one.lane.symbol for one in triggers]),
        "interval": (TEXT, [one.lane.interval for one in triggers]),
        "time": (TIME, [moment(one.origin.ts_event_ms) for one in triggers]),
        "mode": (TEXT, [one.lane.mode for one in triggers]),
        "trigger": (TEXT, [one.kind for one in triggers]),
        "prompt": (TEXT, [one.text for one in prompts]),
        "prompt_tokens": (WHOLE, [int(one.prompt.ids.size) for one in prompts]),
        "prefix_tokens": (WHOLE, [one.prompt.prefix_tokens for one in prompts]),
        "prompt_version": (TEXT, [one.prompt.version for one in prompts]),
        "prompt_hash": (TEXT, [one.prompt.hash for one in prompts]),
        "epoch": (TEXT, [one.prompt.epoch for one in prompts]),
    }


def decision_columns(audits: Sequence[AuditRecord], signals: Mapping[UUID, Signal], cancels: Mapping[UUID, Cancel]) -> Columns:
    """Return how each trigger ended, with the signal that it led to and its cancel."""
    found = [None if one.signal_id is None else signals.get(one.signal_id) for one in audits]
    ended = [None if one.signal_id is None else cancels.get(one.signal_id) for one in audits]

    def of_signal(name: str) -> list[Any]:
        return [None if one is None else getattr(one, name) for one in found]

    columns: Columns = {
        "symbol": (TEXT, [one.symbol for one in audits]),
        "interval": (TEXT, [one.interval for one in audits]),
        "time": (TIME, [moment(one.trigger.ts_event_ms) for one in audits]),
        "mode": (TEXT, [one.mode for one in audits]),
        "trigger": (TEXT, [one.trigger_kind for one in audits]),
        "outcome": (TEXT, [one.outcome.value for one in audits]),
        "reason": (TEXT, [one.reason for one in audits]),
        "detail": (TEXT, [one.detail or None for one in audits]),
        "action": (TEXT, [None if one.action is None else one.action.value for one in audits]),
        "conviction": (NUMBER, of_signal("conviction")),
        "horizon_bars": (NUMBER, of_signal("horizon_bars")),
        "entry_type": (TEXT, of_signal("entry_type")),
        "ref_price": (NUMBER, _floats(of_signal("ref_price"))),
        "entry": (NUMBER, _floats(of_signal("entry"))),
        "stop": (NUMBER, _floats(of_signal("stop"))),
        "target": (NUMBER, _floats(of_signal("target"))),
    }
    chances = [(one.probabilities if one is not None else None) or {} for one in found]
    columns |= {name: (NUMBER, [chance.get(action) for chance in chances]) for name, action in PROBABILITIES.items()}  # type: ignore[call-overload]
    return columns | {
        "decided": (TIME, _moments(of_signal("ts_decided_ms"))),
        "valid_until": (TIME, _moments(of_signal("valid_until_ms"))),
        "horizon_end": (TIME, _moments(of_signal("horizon_end_ms"))),
        "cancelled": (TEXT, [None if one is None else one.reason.value for one in ended]),
        "cancelled_at": (TIME, [None if one is None else moment(one.ts_decided_ms) for one in ended]),
        "vision": (TEXT, [one.vision for one in audits]),
        "source": (TEXT, [one.source for one in audits]),
        "engine": (TEXT, [one.engine for one in audits]),
        "model": (TEXT, [one.model for one in audits]),
        "answer": (TEXT, [one.answer for one in audits]),
        "prompt_tokens": (NUMBER, [one.prompt_tokens for one in audits]),
        "prompt_version": (TEXT, [one.prompt_version for one in audits]),
        "prompt_hash": (TEXT, [one.prompt_hash for one in audits]),
        "trigger_id": (TEXT, [str(one.trigger_id) for one in audits]),
        "signal_id": (TEXT, [None if one.signal_id is None else str(one.signal_id) for one in audits]),
    }


def outcome_columns(outcomes: Sequence[SignalOutcome]) -> Columns:
    """Return what the market did after each signal."""
    return {
        "symbol": (TEXT, [one.symbol for one in outcomes]),
        "interval": (TEXT, [one.interval for one in outcomes]),
        "action": (TEXT, [one.action.value for one in outcomes]),
        "conviction": (NUMBER, [one.conviction for one in outcomes]),
        "entry_time": (TIME, _moments([one.ts_entry_ms for one in outcomes])),
        "exit_time": (TIME, _moments([one.ts_exit_ms for one in outcomes])),
        "entry": (NUMBER, _floats([one.entry for one in outcomes])),
        "exit": (NUMBER, _floats([one.exit for one in outcomes])),
        "exit_reason": (TEXT, [one.exit_reason.value for one in outcomes]),
        "return_net": (NUMBER, [one.return_net for one in outcomes]),
        "max_favourable": (NUMBER, [one.max_favourable for one in outcomes]),
        "max_adverse": (NUMBER, [one.max_adverse for one in outcomes]),
        "bars_held": (WHOLE, [one.bars_held for one in outcomes]),
        "brier": (NUMBER, [one.brier for one in outcomes]),
        "log_loss": (NUMBER, [one.log_loss for one in outcomes]),
        "signal_id": (TEXT, [str(one.signal_id) for one in outcomes]),
    }


def _floats(values: Sequence[str | None]) -> list[float | None]:
    return [None if value is None else float(value) for value in values]


def _moments(values: Sequence[int | None]) -> list[Any]:
    return [moment(value) for value in values]
