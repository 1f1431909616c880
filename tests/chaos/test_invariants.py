"""The judge itself: topics that keep every promise pass, and each way of breaking one is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schemas import AuditRecord, CancelReason, Outcome, RunMode, Signal, Topic, topic_name
from schemas.examples import EXAMPLES
from schemas.signal import AsOf, Cancel
from services.core.bus import Record, TopicPartition
from services.core.bus.memory import MemoryBus
from services.core.clock import VirtualClock
from services.core.instruments import Instruments
from services.core.settings import Settings, load
from services.core.topic_admin import ensure_topics
from tests.chaos.invariants import Verdict, judge, triggers_of
from tests.integration.fusion.feed import MINUTE_MS, START_MS, bar, instrument, window
from tests.integration.fusion.logs import Logs
from tests.integration.fusion.worker import write_settings

SIGNAL = Signal.decode(EXAMPLES[Signal].encode())
AUDIT = AuditRecord.decode(EXAMPLES[AuditRecord].encode())
CANCEL = Cancel.decode(EXAMPLES[Cancel].encode())
SYMBOL = "COIN0-USD.CBSE"
NOW_MS = START_MS + 1_000 * MINUTE_MS
FIRST = {TopicPartition(topic_name(topic, RunMode.DEMO), 0): 0 for topic in (Topic.MARKET_FEATURES, Topic.VISION_FEATURES)}


class Case:
    """Two bars, a window, and what a worker that keeps every promise makes of them."""

    def __init__(self, settings: Settings, instruments: Instruments) -> None:
        self.settings = settings
        self.instruments = instruments
        self.logs = Logs(MemoryBus(VirtualClock()), RunMode.DEMO, 1)
        self.put(Topic.VISION_FEATURES, window(SYMBOL, 0).encode())
        for number in range(3):
            self.put(Topic.MARKET_FEATURES, bar(SYMBOL, number).encode())
        made = sorted(triggers_of(self.logs, settings, instruments, FIRST).values(), key=lambda one: one.origin.offset)
        vision = made[0].origin.model_copy(update={"topic": "demo.vision-features"})
        self.signals = [
            SIGNAL.model_copy(
                update={
                    "run_mode": RunMode.DEMO,
                    "symbol": SYMBOL,
                    "trigger_id": one.trigger_id,
                    "signal_id": one.signal_id,
                    "as_of": AsOf(market=one.origin, vision=vision),
                    "ts_decided_ms": NOW_MS,
                    "valid_until_ms": NOW_MS + 3_000,
                }
            )
            for one in made
        ]
        self.audits = [
            AUDIT.model_copy(
                update={
                    "run_mode": RunMode.DEMO,
                    "symbol": SYMBOL,
                    "trigger_id": one.trigger_id,
                    "trigger": one.origin,
                    "signal_id": one.signal_id,
                    "outcome": Outcome.PUBLISHED,
                    "reason": None,
                }
            )
            for one in made
        ]
        self.appended_ms = NOW_MS

    def put(self, topic: Topic, value: bytes, at_ms: int = NOW_MS) -> None:
        """Append a record."""
        offset = len(self.logs.records[topic])
        self.logs._take(Record(topic_name(topic, RunMode.DEMO), 0, offset, at_ms, SYMBOL.encode(), value))

    def verdict(self) -> Verdict:
        """Publish what stands now, and judge."""
        for signal in self.signals:
            self.put(Topic.STRATEGY_SIGNALS, signal.encode(), self.appended_ms)
        for audit in self.audits:
            self.put(Topic.SIGNAL_AUDIT, audit.encode())
        return judge(self.logs, self.settings, self.instruments, FIRST)

    def cancel(self, signal: Signal) -> None:
        """Withdraw a signal."""
        word = CANCEL.model_copy(
            update={"run_mode": RunMode.DEMO, "symbol": SYMBOL, "signal_id": signal.signal_id, "reason": CancelReason.LATE_ACK}
        )
        self.put(Topic.STRATEGY_SIGNALS, word.encode())


@pytest.fixture
async def case(tmp_path: Path) -> Case:
    bus = MemoryBus(VirtualClock(NOW_MS))
    await ensure_topics(await bus.admin(), RunMode.DEMO, 1)
    producer = await bus.producer(client_id="test")
    await producer.send("demo.instruments", key=SYMBOL.encode(), value=instrument(SYMBOL).encode())
    instruments = Instruments(bus, VirtualClock(NOW_MS), RunMode.DEMO, "test")
    await instruments.start()
    values: dict[str, Any] = {"run_mode": "demo", "fusion": {"intervals": ["1m"]}}
    return Case(load(write_settings(tmp_path / "settings.toml", values)), instruments)


def test_kept_promises_are_found_kept_redeliveries_included(case: Case) -> None:
    case.signals.append(case.signals[-1])
    case.audits.append(case.audits[0])
    verdict = case.verdict()
    assert verdict.broken == []
    assert verdict.counts == {"triggers": 3, "signals": 3, "cancels": 0, "signals written again": 1, "outcomes written again": 1}


def _lose_an_outcome(case: Case) -> None:
    del case.audits[1], case.signals[1]


def _end_twice(case: Case) -> None:
    case.audits.append(case.audits[0].model_copy(update={"outcome": Outcome.STALE, "signal_id": None}))


def _publish_what_was_conflated(case: Case) -> None:
    case.audits[1] = case.audits[1].model_copy(update={"outcome": Outcome.CONFLATED, "signal_id": None, "reason": "newer_trigger"})


def _publish_nothing(case: Case) -> None:
    del case.signals[1]


def _answer_no_trigger(case: Case) -> None:
    case.signals[0] = case.signals[0].model_copy(update={"signal_id": SIGNAL.signal_id})


def _act_on_another_prompt(case: Case) -> None:
    case.signals[0] = case.signals[0].model_copy(update={"prompt_hash": "0" * 64})


def _go_backwards(case: Case) -> None:
    case.signals.reverse()


def _forget_vision(case: Case) -> None:
    case.signals[2] = case.signals[2].model_copy(update={"as_of": AsOf(market=case.signals[2].as_of.market)})


def _miss_the_deadline(case: Case) -> None:
    case.signals[0] = case.signals[0].model_copy(update={"ts_decided_ms": NOW_MS + 2_900})


def _arrive_late(case: Case) -> None:
    case.appended_ms = NOW_MS + 4_000


BREACHES: dict[str, Callable[[Case], None]] = {
    "has no outcome": _lose_an_outcome,
    "has two outcomes": _end_twice,
    "left, and its trigger ended conflated": _publish_what_was_conflated,
    "ended published, and no signal": _publish_nothing,
    "answers no trigger": _answer_no_trigger,
    "rests on another prompt": _act_on_another_prompt,
    "as-of went from": _go_backwards,
    "partitions of different workers": _forget_vision,
    "past its deadline": _miss_the_deadline,
    "appended late and never withdrawn": _arrive_late,
}


@pytest.mark.parametrize("words", BREACHES)
def test_a_broken_promise_is_found(case: Case, words: str) -> None:
    BREACHES[words](case)
    assert any(words in broken for broken in case.verdict().broken)


def test_what_arrived_late_and_was_withdrawn_keeps_the_promise(case: Case) -> None:
    _arrive_late(case)
    for signal in case.signals:
        case.cancel(signal)
    assert case.verdict().broken == []
