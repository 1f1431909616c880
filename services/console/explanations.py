"""Why nothing was sent: a sentence for each reason that an audit record gives, in an operator's terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from schemas import AuditRecord, Cancel, Outcome

_OUTCOMES: Final[Mapping[Outcome, str]] = {
    Outcome.PUBLISHED: "The signal was published.",
    Outcome.CONFLATED: "A newer trigger of the same symbol, interval and mode took its place before the model was asked.",
    Outcome.STALE: "The decision came too late to be acted on, so nothing was published.",
    Outcome.BLOCKED: "A rule of the guard stopped it, so nothing was published.",
    Outcome.FAILED: "No usable answer was published. A failure never becomes `hold`.",
}
_REASONS: Final[Mapping[str, str]] = {
    "deadline": "The deadline had passed: acting on it would have been too late.",
    "too_old": "The record was older than fusion.max_staleness_ms when its turn came, so the model was not asked.",
    "no_time": "The engine, as it has lately answered, could not have answered in time, so the model was not asked.",
    "backlog": "Too many records were unfinished, so the oldest waiting trigger was given up.",
    "as_of_behind": "A decision on later records had been published already.",
    "rewritten": "Its bars were revised or rescaled while the model answered.",
    "halted": "An operator has halted this symbol or everything, or live has not been resumed yet.",
    "min_bars": "There were too few closed bars (fusion.min_bars).",
    "expired": "The instrument has expired.",
    "suspected_split": "A price jump looks like a split that no event explains.",
    "event_lag": "The bar arrived too long after its end (fusion.max_event_lag_ms).",
    "no_atr": "The last bar has no average true range, in which prices are measured.",
    "max_gap_bars": "Too many bars in a row are missing in the window (fusion.max_gap_bars).",
    "max_missing_share": "Too many bars are missing in the window (fusion.max_missing_share).",
    "clock_skew": "The clocks of worker and broker differ too much (fusion.max_skew_ms).",
    "rate_limit": "The worker had published too many signals in the last minute (fusion.rate_limit_per_min).",
    "cool_down": "The last entry of this symbol was too recent (fusion.cool_down_ms).",
    "flip_flop": "The symbol changed sides too often (fusion.flip_flop_limit).",
    "own_guard": "A guard of the strategy's own stopped it.",
    "hook_failed": "A hook of the strategy raised, took too long or returned what it must not.",
    "engine_timeout": "The engine did not answer in time.",
    "engine_open": "The engine's address keeps failing, so it was not called.",
    "publish_failed": "The broker did not take the signal.",
    "publish_unacknowledged": "The broker did not acknowledge the signal in time; it was cancelled in case it had been appended.",
    "internal_error": "The worker met an error of its own; its log has the details.",
}


def explain(audit: AuditRecord, cancel: Cancel | None) -> str:
    """Return how a trigger ended, in a few sentences."""
    sentences = [_OUTCOMES[audit.outcome]]
    if audit.reason is not None:
        sentences.append(_REASONS.get(audit.reason, f"Reason: {audit.reason}."))
    if cancel is not None:
        sentences.append(f"It was cancelled afterwards: {cancel.reason.value}.")
    return " ".join(sentences)
