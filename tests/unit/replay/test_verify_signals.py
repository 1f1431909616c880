"""Audit and signals must agree: whatever one says and the other denies is named, and nothing else is."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid5

import pytest

from schemas import Action, AuditRecord, Cancel, CancelReason, Outcome, RunMode, Signal, Topic, topic_name
from services.core.bus.memory import MemoryBus
from services.core.bus.topic_reader import TimeRange
from services.core.clock import VirtualClock
from services.core.topic_admin import ensure_topics
from services.replay.audit_trail import AuditEntry
from services.replay.verify_signals import (
    SETTLING_MS,
    PublishedSignals,
    contradictions,
    read_signals_topic,
    signals_of,
)
from tests.unit.fusion import build
from tests.unit.fusion.build import MODE, START


def signal(number: int) -> Signal:
    made = build.signal(number)
    return made.model_copy(update={"signal_id": uuid5(made.trigger_id, made.mode)})


def audit(of: Signal, outcome: Outcome = Outcome.PUBLISHED, reason: str | None = None) -> AuditRecord:
    return AuditRecord(
        schema_version=1,
        run_mode=MODE,
        trigger_id=of.trigger_id,
        trigger_kind="closed_bar",
        trigger=of.as_of.market,
        symbol=of.symbol,
        interval=of.interval,
        mode=of.mode,
        outcome=outcome,
        reason=reason,
        ts_done_ms=START,
        config_version="0" * 16,
        signal_id=of.signal_id,
        action=of.action,
        as_of=of.as_of,
        prompt_hash=of.prompt_hash,
    )


def cancel(of: Signal) -> Cancel:
    return Cancel(
        schema_version=1,
        run_mode=MODE,
        symbol=of.symbol,
        interval=of.interval,
        mode=of.mode,
        signal_id=of.signal_id,
        ts_decided_ms=START,
        reason=CancelReason.LATE_ACK,
    )


def told(audits: Sequence[AuditRecord], messages: Sequence[Signal | Cancel], unsettled: Sequence[Signal] = ()) -> list[str]:
    signals = PublishedSignals("the topic")
    for number, message in enumerate(messages):
        signals.add(f"signal line {number}", message.encode(), unsettled=message in unsettled)
    entries = [AuditEntry(f"audit line {number}", record) for number, record in enumerate(audits)]
    return list(contradictions(entries, signals))


def test_signals_with_their_audit_records_agree_also_when_delivered_twice() -> None:
    signals = [signal(number) for number in range(4)]
    assert told([audit(one) for one in [*signals, signals[0]]], [*signals, signals[1]]) == []


def test_a_published_signal_that_the_audit_calls_failed_is_named() -> None:
    """The worker once audited 19 of 19 published buys as `failed internal_error`, and verification passed."""
    signals = [signal(number) for number in range(3)]
    audits = [audit(signals[0]), audit(signals[1], Outcome.FAILED, "internal_error"), audit(signals[2])]
    found = told(audits, signals)
    assert len(found) == 1
    for part in ("audit line 1", str(signals[1].trigger_id), "failed (internal_error)", str(signals[1].signal_id), "buy"):
        assert part in found[0]


@pytest.mark.parametrize(("outcome", "reason"), [(Outcome.STALE, "late_ack"), (Outcome.FAILED, "publish_failed")])
def test_a_signal_that_was_cancelled_may_have_another_outcome(outcome: Outcome, reason: str) -> None:
    one = signal(1)
    assert told([audit(one, outcome, reason)], [one, cancel(one)]) == []
    assert len(told([audit(one, outcome, reason)], [one])) == 1


def test_an_outcome_published_without_a_signal_is_named() -> None:
    one, other = signal(1), signal(2)
    found = told([audit(one), audit(other)], [one])
    assert len(found) == 1
    assert str(other.signal_id) in found[0]


def test_a_signal_without_an_audit_record_is_named_unless_its_record_may_still_come() -> None:
    one, other = signal(1), signal(2)
    found = told([audit(one)], [one, other])
    assert len(found) == 1
    assert str(other.trigger_id) in found[0]
    assert told([audit(one)], [one, other], unsettled=[other]) == []


def test_another_action_in_the_audit_is_named_with_both() -> None:
    one = signal(1)
    found = told([audit(one).model_copy(update={"action": Action.SELL})], [one])
    assert len(found) == 1
    assert "action is buy in the signal and sell in the audit" in found[0]


def test_what_a_takeover_audited_without_the_answer_agrees() -> None:
    one = signal(1)
    bare = audit(one).model_copy(update={"action": None, "as_of": None, "prompt_hash": None})
    assert told([bare], [one]) == []


def test_two_outcomes_of_one_trigger_are_named() -> None:
    one = signal(1)
    found = told([audit(one), audit(one, Outcome.STALE, "too_old")], [one])
    assert len(found) == 1
    assert "stale (too_old)" in found[0]
    assert "audit line 0" in found[0]


def test_an_export_holds_the_signals_of_its_audit_with_their_cancels() -> None:
    first, second, third = (signal(number) for number in range(3))
    signals = PublishedSignals("the topic")
    for message in (first, second, third, cancel(second)):
        signals.add("here", message.encode(), unsettled=message is third)
    entries = [AuditEntry("here", audit(first)), AuditEntry("here", audit(second, Outcome.STALE, "late_ack"))]
    assert signals_of(entries, signals) == [first.encode(), second.encode(), cancel(second).encode()]


async def test_signals_near_the_end_of_a_time_range_need_no_audit_record_yet() -> None:
    bus = MemoryBus(VirtualClock(START))
    await ensure_topics(await bus.admin(), MODE, 1, overrides={Topic.STRATEGY_SIGNALS: {"message.timestamp.type": "CreateTime"}})
    producer = await bus.producer(client_id="test")
    signals = [signal(number) for number in range(4)]
    until_ms = START + 10 * SETTLING_MS
    times = [START - 1, START, until_ms - SETTLING_MS, until_ms + SETTLING_MS]
    for one, at_ms in zip(signals, times, strict=True):
        await producer.send(topic_name(Topic.STRATEGY_SIGNALS, MODE), key=b"k", value=one.encode(), timestamp_ms=at_ms)
    await producer.flush()
    read = await read_signals_topic(bus, RunMode.DEMO, TimeRange(START, until_ms))
    assert set(read.by_id) == {one.signal_id for one in signals[:3]}
    assert read.unsettled == {signals[0].signal_id, signals[2].signal_id}
    assert len(list(contradictions([], read))) == 1
    await bus.close()
