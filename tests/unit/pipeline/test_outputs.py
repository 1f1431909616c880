"""What workers publish: distinct by id, with percentiles and ratios."""

from __future__ import annotations

from schemas import AuditRecord, Outcome, Signal
from services.fusion.prompt.prewarm import WarmCount
from services.pipeline.outputs import Outputs, hit_ratio, latencies, outcomes
from tests.unit.pipeline.build import audit, signal


def test_a_redelivered_outcome_counts_once() -> None:
    outputs, once = Outputs(), audit()
    outputs.add(once)
    outputs.add(once)
    assert (outcomes(outputs.audits.values())[Outcome.PUBLISHED], outputs.contradictions) == (1, 0)


def test_each_trigger_is_reported_once_and_not_before_its_signal() -> None:
    reported: list[tuple[AuditRecord, Signal | None]] = []
    outputs = Outputs(lambda *ended: reported.append(ended))
    published, stale = audit(), audit(Outcome.STALE)
    for record in (published, stale, published):
        outputs.add(record)
    assert reported == [(stale, None)]
    outputs.add(sent := signal(published.signal_id))
    assert reported == [(stale, None), (published, sent)]


def test_a_second_other_outcome_of_a_trigger_is_a_contradiction() -> None:
    outputs, once = Outputs(), audit()
    outputs.add(once)
    outputs.add(once.model_copy(update={"outcome": Outcome.STALE}))
    assert outputs.contradictions == 1


def test_latencies_are_given_by_stage_and_percentile() -> None:
    columns = latencies([audit(latency_ms={"queue": float(ms)}) for ms in range(1, 101)])
    assert columns["queue"] == columns["total"] == {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "max": 100.0}
    assert latencies([]) == {}


def test_the_hit_ratio_is_taken_over_tokens_and_what_was_sent_ahead() -> None:
    records = [audit(prompt_tokens=100, cached_tokens=100), audit(prompt_tokens=300, cached_tokens=200)]
    assert hit_ratio(records) == 0.75
    assert hit_ratio(records, WarmCount(prompt_tokens=200)) == 0.5
    assert hit_ratio([]) is None
