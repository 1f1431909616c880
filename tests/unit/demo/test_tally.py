"""What came of a run: distinct by id, by phase, with percentiles and ratios."""

from __future__ import annotations

import datetime as dt
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import DeadLetterReason, Outcome
from services.demo.script import Phase, Wanted
from services.demo.sums import closing_sums
from services.demo.tally import Tally, hit_ratio, latencies, percentile, total_ms
from services.fusion.deliver.accounts import Accounts
from tests.unit.demo.build import audit, script, signal


@pytest.fixture
def tally() -> Tally:
    return Tally(script(Wanted(80, 1.5, burst=True, outage=True, start=None, history_from=dt.date(2000, 1, 1))))


def test_a_redelivered_outcome_counts_once(tally: Tally) -> None:
    once = audit()
    assert tally.add_audit(once)
    assert not tally.add_audit(once)
    assert (tally.outcomes[Outcome.PUBLISHED], tally.contradictions) == (1, 0)


def test_a_second_other_outcome_of_a_trigger_is_a_contradiction(tally: Tally) -> None:
    once = audit()
    tally.add_audit(once)
    tally.add_audit(once.model_copy(update={"outcome": Outcome.STALE}))
    assert tally.contradictions == 1


def test_triggers_belong_to_the_phase_of_their_bar(tally: Tally) -> None:
    burst = next(act for act in tally._script.acts if act.phase is Phase.BURST)
    record = audit()
    tally.add_audit(record.model_copy(update={"trigger": record.trigger.model_copy(update={"ts_event_ms": burst.until_ms})}))
    assert tally.by_phase[Phase.BURST][Outcome.PUBLISHED] == 1
    assert len(tally.published(Phase.BURST)) == 1
    assert tally.published(Phase.PACED) == []


def test_the_total_is_the_sum_of_the_stages() -> None:
    assert total_ms(audit(latency_ms={"fold": 1.0, "queue": 2.0, "decision": 40.0, "unknown": 7.0})) == 43.0


@given(st.lists(st.floats(0, 1e6), min_size=1), st.integers(1, 99))
def test_at_least_that_share_lies_at_or_below_a_percentile_which_is_one_of_the_values(values: list[float], percent: int) -> None:
    found = percentile(values, percent)
    assert found in values
    assert sum(value <= found for value in values) * 100 >= percent * len(values)


def test_latencies_are_told_by_stage_and_percentile() -> None:
    told = latencies([audit(latency_ms={"queue": float(ms)}) for ms in range(1, 101)])
    assert told["queue"] == told["total"] == {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "max": 100.0}
    assert latencies([]) == {}


def test_the_hit_ratio_is_taken_over_tokens_and_what_was_sent_ahead() -> None:
    records = [audit(prompt_tokens=100, cached_tokens=100), audit(prompt_tokens=300, cached_tokens=200)]
    assert hit_ratio(records) == 0.75
    assert hit_ratio(records, warm_prompt=200) == 0.5
    assert hit_ratio([]) is None


def _counted(tally: Tally, records: int) -> Accounts:
    accounts = Accounts(triggers=len(tally.audits))
    accounts.records["folded"] = records
    accounts.outcomes.update({outcome.value: count for outcome, count in tally.outcomes.items()})
    return accounts


def _publish(tally: Tally) -> None:
    record = audit()
    tally.add_message(signal(record.signal_id))
    tally.add_audit(record)


def test_sums_that_come_out_are_ok(tally: Tally) -> None:
    _publish(tally)
    tally.add_audit(audit(Outcome.FAILED, reason="engine_open"))
    assert all(one.ok for one in closing_sums(_counted(tally, 5), tally, inputs=5))


def test_each_thing_that_is_off_shows(tally: Tally) -> None:
    _publish(tally)

    def off(accounts: Accounts, inputs: int = 5) -> list[str]:
        return [one.what for one in closing_sums(accounts, tally, inputs) if not one.ok]

    assert off(_counted(tally, 4)) == ["every record was folded, ignored or put aside"]
    lost = _counted(tally, 5)
    lost.triggers += 1
    assert off(lost) == ["every trigger has one outcome in the audit"]
    tally.add_audit(audit())
    assert off(_counted(tally, 5)) == ["every published outcome has its signal"]
    tally.add_audit(audit(Outcome.FAILED, signal_id=uuid4()))
    assert "no failure became a view" in off(_counted(tally, 5))
    tally.add_message(signal(uuid4(), valid_until_ms=1))
    assert "nothing stale left" in off(_counted(tally, 5))


def test_a_lane_that_goes_back_shows(tally: Tally) -> None:
    _publish(tally)
    earlier = signal(uuid4())
    back = earlier.as_of.model_copy(update={"market": earlier.as_of.market.model_copy(update={"offset": 1})})
    tally.add_message(earlier.model_copy(update={"as_of": back}))
    assert [one.what for one in closing_sums(_counted(tally, 0), tally, 0) if not one.ok] == ["no lane went back in time"]


def test_dead_letters_are_part_of_the_sum(tally: Tally) -> None:
    accounts = _counted(tally, 3)
    accounts.records["dead_lettered"] = 1
    accounts.dead_letters[DeadLetterReason.LATE.value] = 1
    assert closing_sums(accounts, tally, 4)[0].ok
