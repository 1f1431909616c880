"""Twenty thousand mutated records on real Kafka: the worker lives, and each record and each trigger is accounted for."""

from __future__ import annotations

from collections import Counter

import pytest

from schemas import Topic
from tests.integration.fusion.feed import SYMBOLS
from tests.integration.fusion.mutations import mutated
from tests.integration.fusion.site import Site

pytestmark = pytest.mark.integration

RECORDS = 20_000


async def test_twenty_thousand_mutated_records_are_accounted_for_and_the_worker_lives(site: Site) -> None:
    worker = (
        await site.worker(engine={"kind": "rules"}, fusion={"max_dead_letter_ratio": 1.0, "min_bars": 2}, log={"level": "error"})
        .start()
        .ready()
    )
    sent = await site.publish_many([mutated(number) for number in range(RECORDS)])

    async def all_read() -> bool:
        await site.logs.look()
        return await worker.metric("aquiline_records_total") == RECORDS

    await site.eventually(all_read, "every record read")
    by = {
        outcome: await worker.metric("aquiline_records_total", outcome=outcome)
        for outcome in ("folded", "duplicate", "filtered", "dead_lettered")
    }
    assert sum(by.values()) == RECORDS
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
