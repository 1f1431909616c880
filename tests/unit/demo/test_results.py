"""What came of a run: distinct by id, by phase, with percentiles and ratios."""

from __future__ import annotations

from uuid import uuid4

import pytest

from schemas import AuditRecord, DeadLetterReason, Outcome
from services.demo.plan import Phase
from services.demo.report import closing_checks
from services.demo.results import Results, hit_ratio, latencies
from services.fusion.deliver.accounts import Accounts
from services.fusion.prompt.prewarm import WarmCount
from tests.unit.demo.build import audit, plan, signal


@pytest.fixture
def results() -> Results:
    return Results(plan())


def test_a_redelivered_outcome_counts_once(results: Results) -> None:
    once = audit()
    results.add(once)
    results.add(once)
    assert (results.outcomes()[Outcome.PUBLISHED], results.contradictions) == (1, 0)


def test_each_trigger_is_reported_once_and_not_before_its_signal() -> None:
    reported: list[AuditRecord] = []
    results = Results(plan(), lambda _, ended: reported.append(ended))
    published, stale = audit(), audit(Outcome.STALE)
    for record in (published, stale, published):
        results.add(record)
    assert reported == [stale]
    results.add(signal(published.signal_id))
    assert reported == [stale, published]


def test_a_second_other_outcome_of_a_trigger_is_a_contradiction(results: Results) -> None:
    once = audit()
    results.add(once)
    results.add(once.model_copy(update={"outcome": Outcome.STALE}))
    assert results.contradictions == 1


def test_triggers_belong_to_the_phase_of_their_bar(results: Results) -> None:
    burst = next(one for one in plan().phases if one.phase is Phase.BURST)
    record = audit()
    results.add(record.model_copy(update={"trigger": record.trigger.model_copy(update={"ts_event_ms": burst.until_ms})}))
    assert results.outcomes(Phase.BURST)[Outcome.PUBLISHED] == 1
    assert len(results.published(Phase.BURST)) == 1
    assert results.published(Phase.PACED) == []


def test_latencies_are_given_by_stage_and_percentile() -> None:
    columns = latencies([audit(latency_ms={"queue": float(ms)}) for ms in range(1, 101)])
    assert columns["queue"] == columns["total"] == {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "max": 100.0}
    assert latencies([]) == {}


def test_the_hit_ratio_is_taken_over_tokens_and_what_was_sent_ahead() -> None:
    records = [audit(prompt_tokens=100, cached_tokens=100), audit(prompt_tokens=300, cached_tokens=200)]
    assert hit_ratio(records) == 0.75
    assert hit_ratio(records, WarmCount(prompt_tokens=200)) == 0.5
    assert hit_ratio([]) is None


def _counted(results: Results, records: int) -> Accounts:
    accounts = Accounts(triggers=len(results.audits))
    accounts.records["folded"] = records
    accounts.outcomes.update({outcome.value: count for outcome, count in results.outcomes().items()})
    return accounts


def _publish(results: Results) -> None:
    record = audit()
    results.add(signal(record.signal_id))
    results.add(record)


def test_checks_that_hold_are_ok(results: Results) -> None:
    _publish(results)
    results.add(audit(Outcome.FAILED, reason="engine_open"))
    assert all(one.ok for one in closing_checks(_counted(results, 5), results, inputs=5))


def test_each_failing_check_is_named(results: Results) -> None:
    _publish(results)

    def wrong(accounts: Accounts, inputs: int = 5) -> list[str]:
        return [one.what for one in closing_checks(accounts, results, inputs) if not one.ok]

    assert wrong(_counted(results, 4)) == ["every record was folded, ignored or dead-lettered"]
    lost = _counted(results, 5)
    lost.triggers += 1
    assert wrong(lost) == ["every trigger has one outcome in the audit"]
    results.add(audit())
    assert wrong(_counted(results, 5)) == ["every published outcome has its signal"]
    results.add(audit(Outcome.FAILED, signal_id=uuid4()))
    assert "no failure became a signal" in wrong(_counted(results, 5))
    results.add(signal(uuid4(), valid_until_ms=1))
    assert "no signal left past its validity" in wrong(_counted(results, 5))


def test_a_lane_that_goes_back_in_time_is_found(results: Results) -> None:
    _publish(results)
    earlier = signal(uuid4())
    back = earlier.as_of.model_copy(update={"market": earlier.as_of.market.model_copy(update={"offset": 1})})
    results.add(earlier.model_copy(update={"as_of": back}))
    assert [one.what for one in closing_checks(_counted(results, 0), results, 0) if not one.ok] == ["no lane went back in time"]


def test_dead_letters_count_as_records(results: Results) -> None:
    accounts = _counted(results, 3)
    accounts.records["dead_lettered"] = 1
    accounts.dead_letters[DeadLetterReason.LATE.value] = 1
    assert closing_checks(accounts, results, 4)[0].ok
