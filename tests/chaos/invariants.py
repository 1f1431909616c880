"""What must hold whatever was killed: judged from the topics alone, as anybody could who was not there.

Triggers are made anew from the inputs by the worker's own policy; outcomes, signals and cancels are read as consumers read them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from uuid import UUID

from schemas import AsOf, AuditRecord, Cancel, CancelReason, Outcome, Signal, Topic
from services.core.bus import Record, TopicPartition
from services.core.clock import VirtualClock
from services.core.instruments import Instruments
from services.core.settings import Settings
from services.fusion.state.books import Books
from services.fusion.state.intake import Intake
from services.fusion.state.triggers import LaneKey, Trigger, TriggerPolicy
from tests.integration.fusion.logs import Logs

_MAYBE_APPENDED = "publish_unacknowledged"


@dataclass(slots=True)
class Verdict:
    """What was counted, and every promise that was found broken."""

    counts: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    prompt_ms: list[float] = field(default_factory=list)
    """Of the stage `prompt` of each published decision, which holds all waiting for Redis."""

    def __str__(self) -> str:
        """Return the counts in a line."""
        prompt = f", prompt stage median {median(self.prompt_ms):.1f} ms, most {max(self.prompt_ms):.1f} ms" if self.prompt_ms else ""
        return f"{dict(self.counts)}, outcomes {dict(self.outcomes)}{prompt}"


class _Collected:
    """A sink that keeps triggers; vision features complete whatever waits."""

    takes_triggers = True

    def __init__(self) -> None:
        self.triggers: list[Trigger] = []

    def trigger(self, trigger: Trigger, wait_until_ms: int, record: Record) -> None:
        del wait_until_ms, record
        self.triggers.append(trigger)

    def vision_arrived(self, symbol: str, interval: str, window_end_ms: int) -> bool:
        del symbol, interval, window_end_ms
        return False

    def bars_changed(self, symbol: str, reason: CancelReason) -> None:
        del symbol, reason


def triggers_of(logs: Logs, settings: Settings, instruments: Instruments, first: Mapping[TopicPartition, int]) -> dict[UUID, Trigger]:
    """Return the triggers that the inputs make from the offsets `first` on, by id."""
    policy = TriggerPolicy(settings.fusion)
    intake = Intake(settings, VirtualClock(), Books(settings.fusion, instruments), policy)
    sink = _Collected()
    for topic in (Topic.MARKET_FEATURES, Topic.VISION_FEATURES):
        for record in logs.records[topic]:
            intake.take(record, sink)
    return {
        made.trigger_id: made
        for made in sink.triggers
        if made.origin.offset >= first[TopicPartition(made.origin.topic, made.origin.partition)]
    }


def judge(logs: Logs, settings: Settings, instruments: Instruments, first: Mapping[TopicPartition, int]) -> Verdict:
    """Return what the topics say of the promises."""
    verdict = Verdict()
    triggers = triggers_of(logs, settings, instruments, first)
    audits = _outcomes(logs, triggers, verdict)
    bodies = _signals(logs, audits, triggers, verdict)
    _order(logs, bodies, verdict)
    _deadlines(logs, settings, verdict)
    _together(logs, verdict)
    verdict.prompt_ms = [audit.latency_ms["prompt"] for audit in audits.values() if "prompt" in audit.latency_ms]
    return verdict


def _outcomes(logs: Logs, triggers: Mapping[UUID, Trigger], verdict: Verdict) -> dict[UUID, AuditRecord]:
    """Every trigger has exactly one outcome, however often it was written, and nothing else has any."""
    audits: dict[UUID, AuditRecord] = {}
    for audit in logs.audits:
        held = audits.setdefault(audit.trigger_id, audit)
        if held is not audit:
            verdict.counts["outcomes written again"] += 1
            if (held.outcome, held.signal_id) != (audit.outcome, audit.signal_id):
                verdict.broken.append(
                    f"trigger {audit.trigger_id} of {audit.symbol} at {audit.trigger.partition}/{audit.trigger.offset} has two outcomes: "
                    f"{held.outcome.value} ({held.reason}, at {held.ts_done_ms}) and "
                    f"{audit.outcome.value} ({audit.reason}, at {audit.ts_done_ms})"
                )
    for trigger_id, trigger in triggers.items():
        if trigger_id not in audits:
            at = f"{trigger.lane.symbol} at {trigger.origin.partition}/{trigger.origin.offset}"
            verdict.broken.append(f"trigger {trigger_id} of {at} has no outcome")
    verdict.broken += [f"the outcome of {trigger_id} belongs to no trigger" for trigger_id in audits.keys() - triggers.keys()]
    verdict.outcomes = Counter(audit.outcome.value for audit in audits.values())
    verdict.counts["triggers"] = len(triggers)
    if sum(verdict.outcomes.values()) != len(triggers):
        verdict.broken.append(f"{len(triggers)} triggers, and outcomes that add up to {sum(verdict.outcomes.values())}")
    return audits


def _signals(logs: Logs, audits: Mapping[UUID, AuditRecord], triggers: Mapping[UUID, Trigger], verdict: Verdict) -> dict[UUID, Signal]:
    """Consume as one that keeps the first body of an id: it acts once a trigger, and on what the audit says."""
    bodies: dict[UUID, Signal] = {}
    cancelled = {message.signal_id for _, message in logs.messages if isinstance(message, Cancel)}
    acted: Counter[UUID] = Counter()
    for signal in logs.signals:
        if bodies.setdefault(signal.signal_id, signal) is not signal:
            verdict.counts["signals written again"] += 1
            continue
        acted[signal.trigger_id] += 1
        audit, trigger = audits.get(signal.trigger_id), triggers.get(signal.trigger_id)
        if trigger is None or audit is None or trigger.signal_id != signal.signal_id:
            verdict.broken.append(f"signal {signal.signal_id} of {signal.symbol} answers no trigger that has an outcome")
        elif audit.outcome is Outcome.PUBLISHED:
            if audit.prompt_hash not in {None, signal.prompt_hash}:
                verdict.broken.append(f"signal {signal.signal_id}: its first body rests on another prompt than its outcome")
        elif audit.reason != _MAYBE_APPENDED or signal.signal_id not in cancelled:
            verdict.broken.append(f"signal {signal.signal_id} left, and its trigger ended {audit.outcome.value} ({audit.reason})")
    verdict.counts["signals"] = len(bodies)
    verdict.counts["cancels"] = len(cancelled)
    verdict.broken += [f"trigger {trigger_id} was acted on {count} times" for trigger_id, count in acted.items() if count > 1]
    for audit in audits.values():
        if audit.outcome is Outcome.PUBLISHED and audit.signal_id not in bodies:
            verdict.broken.append(f"trigger {audit.trigger_id} ended published, and no signal {audit.signal_id} is on the topic")
    return bodies


def _order(logs: Logs, bodies: Mapping[UUID, Signal], verdict: Verdict) -> None:
    """In a lane, as-of never goes backwards, in either offset."""
    last: dict[LaneKey, AsOf] = {}
    for signal in logs.signals:
        if bodies[signal.signal_id] is not signal:
            continue
        lane = LaneKey(signal.symbol, signal.interval, signal.mode)
        held = last.get(lane)
        if held is not None and not _not_before(held, signal.as_of):
            verdict.broken.append(f"lane {lane}: as-of went from {_offsets(held)} back to {_offsets(signal.as_of)}")
        last[lane] = signal.as_of


def _not_before(held: AsOf, now: AsOf) -> bool:
    if now.market.offset < held.market.offset:
        return False
    return held.vision is None or (now.vision is not None and now.vision.offset >= held.vision.offset)


def _offsets(as_of: AsOf) -> tuple[int, int | None]:
    return as_of.market.offset, as_of.vision.offset if as_of.vision else None


def _deadlines(logs: Logs, settings: Settings, verdict: Verdict) -> None:
    """Nothing is handed over past its deadline, and what arrives late all the same is withdrawn."""
    withdrawn: dict[UUID, int] = {}
    for record, message in logs.messages:
        if isinstance(message, Cancel):
            withdrawn.setdefault(message.signal_id, record.offset)
    for record, message in logs.messages:
        if not isinstance(message, Signal):
            continue
        over_ms = message.ts_decided_ms - (message.valid_until_ms - settings.fusion.delivery_reserve_ms)
        if over_ms > 0:
            verdict.broken.append(f"signal {message.signal_id} was handed over {over_ms} ms past its deadline")
        if record.timestamp_ms > message.valid_until_ms:
            verdict.counts["appended late"] += 1
            if message.signal_id not in withdrawn:
                verdict.broken.append(f"signal {message.signal_id} was appended late and never withdrawn")


def _together(logs: Logs, verdict: Verdict) -> None:
    """Whoever decided held both topics of the symbol: it knew the vision features that were there before it started."""
    for signal in logs.signals:
        if signal.as_of.vision is None or signal.as_of.vision.partition != signal.as_of.market.partition:
            verdict.broken.append(f"signal {signal.signal_id} of {signal.symbol} rests on partitions of different workers")
