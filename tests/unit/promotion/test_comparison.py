"""What a comparison says of two trails, and the verdict."""

from __future__ import annotations

import io
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from schemas import Action, AuditRecord, ExitReason, Outcome, RunMode
from services.promotion.audit_summary import AuditSummary
from services.promotion.comparison import Criteria, Expected, NothingToCompareError, compare
from services.promotion.comparison_result import Comparison
from services.promotion.comparison_table import show
from services.promotion.decision_pairs import pairs
from tests.unit.promotion.build_pairs import LENIENT, LIVE, LIVE_VERSION, SHADOW, UNSCORED, audit, bought, compared, scored, trail

ENDS = st.sampled_from([*((Outcome.PUBLISHED, action) for action in Action), *((one, None) for one in Outcome if one != "published")])


def live(offset: int, action: Action | None = Action.HOLD, outcome: Outcome = Outcome.PUBLISHED, **changes: Any) -> AuditRecord:
    return audit(RunMode.LIVE, offset, action, outcome, **changes)


def shadow(offset: int, action: Action | None = Action.HOLD, outcome: Outcome = Outcome.PUBLISHED, **changes: Any) -> AuditRecord:
    return audit(RunMode.SHADOW, offset, action, outcome, **changes)


def missed(found: Comparison) -> list[str]:
    return [check.name for check in found.failed]


def test_decisions_on_the_same_record_are_held_against_each_other() -> None:
    found = compared(
        trail(live(1, Action.BUY), live(2, Action.SELL), live(3, Action.HOLD), live(4, Action.BUY)),
        trail(shadow(1, Action.BUY), shadow(2, Action.HOLD), shadow(3, None, Outcome.STALE), shadow(4, Action.BUY)),
    )
    assert (found.pairs, found.decided, found.coverage) == (4, 3, 1.0)
    assert found.actions == {"buy": {"buy": 2}, "hold": {"stale": 1}, "sell": {"hold": 1}}
    assert found.agreement == pytest.approx(2 / 3)
    assert found.shadow.outcomes == {"published": 3, "stale": 1}
    assert found.shadow.reasons == {"reason": 1}
    assert found.live.prefix_hits == pytest.approx(0.9)
    assert found.live.latency_ms["record_to_decision"].p50 == 123.0


def test_another_symbol_interval_or_mode_is_another_moment() -> None:
    ours, theirs = [live(1)], [shadow(1, symbol="ETH-USD.CBSE"), shadow(1, interval="15m"), shadow(1, mode="deep")]
    assert pairs(map(AuditSummary.of, ours), map(AuditSummary.of, theirs)) == []


@given(st.lists(st.tuples(ENDS, ENDS), min_size=1, max_size=30))
def test_every_moment_of_both_stands_in_the_matrix_once_and_the_sums_close(ends: list[tuple[tuple[Outcome, Action | None], ...]]) -> None:
    ours = [live(offset, action, outcome) for offset, ((outcome, action), _) in enumerate(ends)]
    theirs = [shadow(offset, action, outcome) for offset, (_, (outcome, action)) in enumerate(ends)]
    found = compared(trail(*ours), trail(*theirs))
    looked_at = sum(Outcome.CONFLATED not in {one, two} for (one, _), (two, _) in ends)
    assert found.pairs == looked_at == sum(sum(row.values()) for row in found.actions.values())
    assert found.coverage == 1.0
    assert found.live.triggers == sum(found.live.outcomes.values()) == len(ends)
    same = sum(row.get(action, 0) for action, row in found.actions.items() if action in set(Action))
    assert found.agreement is None or found.agreement == pytest.approx(same / found.decided)


@given(st.permutations(range(12)), st.permutations(range(12)))
def test_the_order_of_the_log_and_redelivered_records_change_nothing(ours: list[int], theirs: list[int]) -> None:
    def sides(one: list[int], two: list[int]) -> Comparison:
        actions = list(Action)
        return compared(
            trail(*(live(number, actions[number % 5]) for number in one)), trail(*(shadow(number, actions[number % 3]) for number in two))
        )

    assert sides(ours + ours[:3], theirs + theirs[5:]).actions == sides(list(range(12)), list(range(12))).actions


def test_only_the_span_with_triggers_of_both_counts() -> None:
    found = compared(trail(*(live(number) for number in range(10))), trail(*(shadow(number) for number in range(4, 15))))
    assert (found.live.triggers, found.shadow.triggers, found.coverage) == (6, 6, 1.0)


def test_only_the_newest_configuration_of_a_side_counts() -> None:
    old = shadow(1, config_version="9" * 16)
    found = compared(trail(live(1), live(2)), trail(old, shadow(2)))
    assert (found.shadow.triggers, found.shadow.other_versions) == (1, 1)


def test_a_shadow_of_few_symbols_is_held_against_those_alone() -> None:
    ours, theirs = trail(live(1), live(2, symbol="ETH-USD.CBSE"), live(3)), trail(shadow(1), shadow(3))
    assert compared(ours, theirs).coverage == pytest.approx(2 / 3)
    assert compared(ours, theirs, symbols=("BTC-USD.CBSE",)).coverage == 1.0


@pytest.mark.parametrize(
    ("ours", "theirs", "of_what"),
    [([], [1], "live has no audit"), ([1], [], "shadow has no audit"), ([1, 2], [3, 4], "never had triggers at the same time")],
)
def test_where_there_is_nothing_to_compare_it_says_of_what(ours: list[int], theirs: list[int], of_what: str) -> None:
    with pytest.raises(NothingToCompareError, match=of_what):
        compared(trail(*map(live, ours)), trail(*map(shadow, theirs)))


def test_a_candidate_like_live_meets_every_criterion_and_one_alone_misses_each() -> None:
    numbers = range(240)
    ours = bought(RunMode.LIVE, numbers)

    def against(criteria: Criteria = Criteria(), **changes: Any) -> list[str]:  # noqa: B008 - frozen
        return missed(compared(ours, bought(RunMode.SHADOW, numbers, **changes), criteria))

    assert against() == []
    assert against(replace(Criteria(), min_pairs=241)) == ["decided pairs"]
    assert against(replace(Criteria(), min_span_ms=240 * 60_000)) == ["span"]
    assert against(source="simulator") == ["source of the shadow's answers"]
    assert against(decision_ms=200.0) == ["p95, record to decision"]
    assert against(cached_tokens=840) == ["prefix hits"]
    assert against(config_version="9" * 16) == ["shadow runs its settings file"]
    assert against(replace(Criteria(), min_agreement=1.0)) == []
    assert against(replace(Criteria(), min_matured=235)) == ["matured pairs"]
    assert against(made=0.0004) == ["returns"], "6 bp less than live, surely"
    assert against(made=0.0006) == [], "4 bp less is within the margin"
    assert against(replace(Criteria(), margin_bps=3.0), made=0.0006) == ["returns"]
    theirs = bought(RunMode.SHADOW, numbers)
    held = trail(*(shadow(number) for number in numbers))
    assert missed(compared(ours, held, replace(Criteria(), min_agreement=0.5))) == ["agreement", "returns"]
    assert missed(compared(ours, replace(theirs, scored={}))) == ["outcomes", "matured pairs", "scored among them", "returns"]
    few = dict(list(theirs.scored.items())[:-12])
    assert missed(compared(ours, replace(theirs, scored=few))) == ["scored among them"]


def test_fewer_moments_and_more_losses_than_live_are_missed() -> None:
    ours = trail(*(live(number) for number in range(100)))
    half = trail(*(shadow(number) for number in range(0, 101, 2)))
    assert set(missed(compared(ours, half))) - UNSCORED == {"coverage"}
    late = trail(*(shadow(number, None, Outcome.STALE) if number % 10 == 5 else shadow(number) for number in range(100)))
    assert set(missed(compared(ours, late))) - UNSCORED == {"stale or failed"}


def test_another_release_says_nothing_of_what_this_one_makes_of_its_file() -> None:
    theirs = trail(shadow(1, prompt_version="aq-2", config_version="9" * 16))
    assert compared(trail(live(1)), theirs).shadow.of_its_file is None
    unknown = Expected("b" * 16, None, "aq-1")
    assert compare((trail(live(1)), trail(shadow(1))), (LIVE, unknown), (), LENIENT, 0).shadow.of_its_file is None
    assert compare((trail(live(1)), trail(shadow(1))), (LIVE, SHADOW), (), LENIENT, 0).live.config_version == LIVE_VERSION


def test_returns_are_paired_and_staying_out_makes_nothing() -> None:
    numbers = range(26)
    ours = bought(RunMode.LIVE, numbers, -0.01)
    out = compared(ours, trail(*(shadow(n) for n in numbers))).returns
    assert out is not None
    assert (out.matured, out.unscored, out.pairs, out.shadow_mean) == (20, 0, 20, 0.0)
    assert out.live_mean == pytest.approx(-0.01)
    assert out.difference == pytest.approx(0.01)
    assert out.low == pytest.approx(0.01)
    theirs = bought(RunMode.SHADOW, numbers)
    unfilled = replace(theirs, scored={one: scored(RunMode.SHADOW, 1, None) for one in theirs.scored})
    assert compared(ours, unfilled).returns == out


def test_a_position_held_over_a_suspected_split_is_no_pair_of_returns() -> None:
    numbers = range(26)
    theirs = bought(RunMode.SHADOW, numbers, 0.01)
    over_split = scored(RunMode.SHADOW, 0, None).model_copy(
        update={"exit_reason": ExitReason.CANCELLED, "unscored_reason": "suspected_split"}
    )
    out = compared(bought(RunMode.LIVE, numbers), replace(theirs, scored={**theirs.scored, over_split.signal_id: over_split})).returns
    assert out is not None
    assert (out.matured, out.unscored, out.pairs) == (20, 0, 19)


def test_a_candidate_has_to_show_that_it_is_not_worse_and_a_wide_interval_shows_nothing() -> None:
    numbers = range(126)
    draw = random.Random(1)  # noqa: S311 - returns, not secrets
    noisy = bought(RunMode.SHADOW, numbers)
    drawn = {one: outcome.model_copy(update={"return_net": draw.gauss(0.001, 0.02)}) for one, outcome in noisy.scored.items()}
    found = compared(bought(RunMode.LIVE, numbers), replace(noisy, scored=drawn))
    assert missed(found) == ["returns"]
    assert missed(compared(bought(RunMode.LIVE, numbers), bought(RunMode.SHADOW, numbers))) == []


def test_pairs_are_compared_once_the_longest_horizon_is_over_whatever_became_of_them_before() -> None:
    numbers = range(40)
    ours = trail(*(live(n, Action.BUY) for n in numbers), outcomes=tuple(scored(RunMode.LIVE, n, 0.01) for n in numbers))
    audits = [shadow(n, Action.BUY) for n in numbers]
    # Quick losses of the last minutes are known already, their slow gains are not: neither counts.
    quick = tuple(scored(RunMode.SHADOW, n, 0.01 if n < 20 else -0.05) for n in numbers)
    theirs = trail(*audits, outcomes=quick, horizon_bars=20)
    found = compared(ours, theirs).returns
    assert found is not None
    assert (found.matured, found.unscored) == (20, 0)
    assert found.shadow_mean == pytest.approx(0.01)


def test_a_matured_pair_without_an_outcome_is_counted_and_not_passed_over() -> None:
    numbers = range(40)
    ours = bought(RunMode.LIVE, numbers)
    theirs = bought(RunMode.SHADOW, numbers)
    lost = {one: outcome for number, (one, outcome) in enumerate(theirs.scored.items()) if number % 10}
    found = compared(ours, replace(theirs, scored=lost), replace(LENIENT, min_matured=1))
    assert found.returns is not None
    assert (found.returns.matured, found.returns.unscored, found.returns.pairs) == (34, 4, 30)
    assert missed(found) == ["scored among them"]


def test_where_one_side_is_not_scored_nothing_is_said_of_returns() -> None:
    numbers = range(20)
    ours = trail(*(live(n, Action.BUY) for n in numbers), outcomes=tuple(scored(RunMode.LIVE, n, 0.01) for n in numbers))
    assert compared(ours, trail(*(shadow(n, Action.BUY if n % 2 else Action.HOLD) for n in numbers))).returns is None


def test_a_comparison_is_stored_and_read_again_as_it_was_and_can_be_shown() -> None:
    numbers = range(120)
    found = compared(bought(RunMode.LIVE, numbers, vision=1), bought(RunMode.SHADOW, numbers, vision=2))
    assert Comparison.model_validate_json(found.model_dump_json()) == found
    assert found.same_vision == 0.0
    out = io.StringIO()
    show(found, Console(file=out, width=140))
    assert "May be promoted." in out.getvalue()
