"""Records and answers that nobody should send: the worker lives, each is accounted for by name, and memory is flat.

`make fuzz` sends 100,000 records of every input topic and 20,000 answers; FUZZ_SEED draws others.
"""

from __future__ import annotations

from collections import Counter

import pytest

from schemas import AuditRecord, Control, DeadLetterReason, HaltState, Message, Outcome, Topic
from services.fusion.decide.answer import Answer, AnswerReader
from tests.integration.fusion.broken_engines import BrokenEngine
from tests.integration.fusion.feed import MINUTE_MS, START_MS, SYMBOLS, bar, instrument, split, window
from tests.integration.fusion.fuzzing import ANSWERS, HISTORY, MODE, RECORDS, ROUND, Fuzzed, draw, fuzzed, keep
from tests.integration.fusion.mutations import broken, mutated
from tests.integration.fusion.site import Site
from tests.unit.fusion.inputs.build import note, position

pytestmark = pytest.mark.integration

KAFKA_RECORDS = 20_000
MOST_GROWTH = 0.05
FAILURES = {
    "engine_broke",
    "engine_refused",
    "engine_unreachable",
    "engine_overloaded",
    "prompt_cut",
    "answer_malformed",
    "answer_invalid",
    "answer_cut_off",
}


async def test_twenty_thousand_mutated_records_are_accounted_for_and_the_worker_lives(site: Site) -> None:
    worker = (
        await site.worker(
            engine={"kind": "rules"},
            fusion={"max_dead_letter_ratio": 1.0, "min_bars": 2},
            bus={"session_timeout_ms": 20_000, "rebalance_timeout_ms": 20_000},
            log={"level": "error"},
        )
        .start()
        .ready()
    )
    sent = await site.publish_many([mutated(number) for number in range(KAFKA_RECORDS)])

    async def all_read() -> bool:
        await site.logs.look()
        return await worker.metric("aquiline_records_total") == KAFKA_RECORDS

    await site.eventually(all_read, "every record read")
    by = {
        outcome: await worker.metric("aquiline_records_total", outcome=outcome)
        for outcome in ("folded", "duplicate", "filtered", "dead_lettered")
    }
    assert sum(by.values()) == KAFKA_RECORDS
    assert all(by.values()), f"each kind occurs: {by}"
    await site.logs.until(lambda: len(site.logs.dead_letters) >= by["dead_lettered"], "every dead letter", told=site.tails)
    letters = {(letter.topic, letter.partition, letter.offset): record for record, letter in site.logs.dead_letters}
    assert len(letters) == len(site.logs.dead_letters) == by["dead_lettered"]
    for at, record in letters.items():
        assert (record.key, record.value) == sent[at]
    triggers = await worker.metric("aquiline_triggers_total")
    await site.logs.until(lambda: len(site.logs.ended) >= triggers, "every outcome", told=site.tails)
    assert len(site.logs.ended) == len(site.logs.audits) == triggers
    assert len({letter.reason for _, letter in site.logs.dead_letters}) >= 8, Counter(letter.reason for _, letter in site.logs.dead_letters)

    before = len(site.logs.ended)
    site.numbers.next = dict.fromkeys(SYMBOLS, 10_000)
    made = await site.feed()
    await site.logs.until(lambda: len(site.logs.ended) >= before + len(made), "outcomes of good bars", told=site.tails)
    assert site.logs.records[Topic.STRATEGY_SIGNALS]
    assert worker.running


@pytest.mark.parametrize("topic", [Topic.MARKET_FEATURES, Topic.VISION_FEATURES], ids=lambda topic: topic.value)
async def test_malformed_records_are_dead_lettered_or_folded_and_memory_is_flat(topic: Topic) -> None:
    make = bar if topic is Topic.MARKET_FEATURES else window
    async with fuzzed({"kind": "rules"}) as fuzz:
        before = Counter(fuzz.worker.accounts.records)
        for first in range(0, RECORDS, ROUND):
            records = []
            for number in range(first, min(first + ROUND, RECORDS)):
                rng = draw(number)
                symbol = rng.choice(SYMBOLS)
                value = broken(make(symbol, HISTORY + number // 20).encode(), rng)
                records.append((topic, rng.choice((*(10 * (symbol.encode(),)), value[:20], None)), value))
            await fuzz.send(records)
            audits = await _ends(fuzz, before.total() + first + len(records))
            assert {audit.outcome.value for audit in audits} <= {"published", "conflated", "blocked"}, [audit.reason for audit in audits]
        counted = fuzz.worker.accounts.records - before
        assert counted.total() == RECORDS
        assert counted["dead_lettered"] == fuzz.worker.accounts.dead_letters.total() > RECORDS // 3
        assert set(fuzz.worker.accounts.dead_letters) <= {reason.value for reason in DeadLetterReason}
        assert fuzz.growth <= MOST_GROWTH, fuzz.memory
        keep(topic.value, {"records": RECORDS, "became": counted, "dead_letters": fuzz.worker.accounts.dead_letters, "growth": fuzz.growth})


@pytest.mark.parametrize(
    "topic", [Topic.INSTRUMENTS, Topic.INSTRUMENT_EVENTS, Topic.CONTROL, Topic.NOTES, Topic.POSITIONS], ids=lambda topic: topic.value
)
async def test_malformed_records_of_the_tables_change_nothing_that_they_do_not_say_and_memory_is_flat(topic: Topic) -> None:
    async with fuzzed({"kind": "rules"}) as fuzz:
        for first in range(0, RECORDS, ROUND):
            for number in range(first, min(first + ROUND, RECORDS)):
                rng = draw(number)
                symbol = rng.choice(SYMBOLS)
                message: Message = {
                    Topic.INSTRUMENTS: instrument(symbol),
                    Topic.INSTRUMENT_EVENTS: split(symbol, 2.0, START_MS + HISTORY * MINUTE_MS + number),
                    Topic.CONTROL: halt(symbol),
                    Topic.NOTES: note(symbol=symbol, ts_ms=START_MS, blackout=(START_MS, START_MS + number + 1)),
                    Topic.POSITIONS: position(symbol=symbol, ts_ms=START_MS),
                }[topic]
                key = rng.choice((symbol.encode(), b"global", b"\xff", None))
                await fuzz.send([(topic, key, broken(message.encode(), rng))])
            await fuzz.worker.catch_up_tables()
            await fuzz.settled(0)
        await fuzz.send([(Topic.CONTROL, scope.encode(), halt(scope, HaltState.ACTIVE).encode()) for scope in ("global", *SYMBOLS)])
        await fuzz.worker.catch_up_tables()
        counted = fuzz.worker.accounts.records.total()
        bars = [(Topic.MARKET_FEATURES, symbol.encode(), bar(symbol, HISTORY + RECORDS // 60_000 + 2).encode()) for symbol in SYMBOLS]
        await fuzz.send(bars)
        audits = await _ends(fuzz, counted + len(bars))
        assert len(audits) == len(bars), "every bar has its outcome after all that"
        assert {audit.outcome.value for audit in audits} <= {"published", "blocked"}, [audit.reason for audit in audits]
        assert fuzz.growth <= MOST_GROWTH, fuzz.memory
        keep(topic.value, {"records": RECORDS, "growth": fuzz.growth})


@pytest.mark.parametrize("kind", ["sglang", "openai"])
async def test_malformed_answers_are_failed_with_a_reason_or_acted_on_as_they_say_and_memory_is_flat(kind: str) -> None:
    symbols = [f"FUZZ{number}-USD.CBSE" for number in range(40)]
    outcomes: Counter[str] = Counter()
    async with BrokenEngine(draw).serving() as engine:
        settings = {"kind": kind, "urls": [engine.url], "breaker_failures": 1_000_000, "probe_idle_ms": 30_000}
        async with fuzzed(settings, symbols, permits=16) as fuzz:
            number = HISTORY
            while engine.answered < ANSWERS // 2:
                await fuzz.send([(Topic.MARKET_FEATURES, symbol.encode(), bar(symbol, number).encode()) for symbol in symbols])
                number += 1
                for audit in await _ends(fuzz, number * len(symbols)):
                    outcomes[audit.reason or audit.outcome.value] += 1
                    assert audit.reason != "internal_error", audit.detail
                    if audit.outcome is Outcome.PUBLISHED:
                        assert _decided(audit) is not None, audit.answer
                    else:
                        assert audit.outcome is Outcome.FAILED, audit.reason
                        assert audit.reason in FAILURES, (audit.reason, audit.detail)
            assert len(outcomes) >= 4, outcomes
            assert fuzz.growth <= MOST_GROWTH, fuzz.memory
            keep(f"answers of {kind}", {"answers": engine.answered, "ended": outcomes, "growth": fuzz.growth})


def halt(scope: str, state: HaltState = HaltState.HALTED) -> Control:
    return Control(schema_version=1, run_mode=MODE, scope=scope, state=state, reason="a test", actor="test", ts_ms=START_MS)


async def _ends(fuzz: Fuzzed, records: int) -> list[AuditRecord]:
    """Return the outcomes since the last round, once all are acknowledged; then the topics are emptied."""
    accounts = fuzz.worker.accounts
    await fuzz.until(lambda: accounts.records.total() >= records, f"{records} records")
    await fuzz.until(lambda: accounts.outcomes.total() == accounts.triggers, "every outcome")
    await fuzz.worker.settle()
    audits = await fuzz.audits()
    await fuzz.settled(records)
    return audits


def _decided(audit: AuditRecord) -> Answer | None:
    """Return the decision in an answer, which may have broken off after it."""
    reader = AnswerReader(thinking=audit.mode == "deep")
    reader.feed(audit.answer or "")
    return reader.decision or reader.finish(None)
