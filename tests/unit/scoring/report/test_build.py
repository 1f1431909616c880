"""The report as a whole: skill shows, its lack shows, and whatever comes in, a whole report comes out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas import ExitReason, InstrumentEvent, Order, RunMode, SignalOutcome
from services.scoring.report import Report, ReportBar, ReportInput, build
from services.scoring.report.model import Evidence
from tests.unit.scoring.report import market
from tests.unit.scoring.report.market import HOUR_MS, START_MS, Plan, hourly, outcome


def figures(part: Any) -> Iterator[float]:
    """Yield every number in a report."""
    if dataclasses.is_dataclass(part):
        for field in dataclasses.fields(part):
            yield from figures(getattr(part, field.name))
    elif isinstance(part, Mapping):
        for value in part.values():
            yield from figures(value)
    elif isinstance(part, tuple):
        for value in part:
            yield from figures(value)
    elif isinstance(part, int | float):
        yield part


def scaled(bar: ReportBar, by: float) -> ReportBar:
    return replace(bar, open=bar.open * by, high=bar.high * by, low=bar.low * by, close=bar.close * by)


def doubled(order: Order | None) -> Order | None:
    if order is None:
        return None
    prices = {name: f"{2 * float(getattr(order, name)):.6f}" for name in ("ref_price", "entry", "stop", "target")}
    return order.model_copy(update=prices)


def report_of(*outcomes: SignalOutcome, bars: Mapping[str, list[ReportBar]] | None = None) -> Report:
    return build(ReportInput("Test", outcomes, bars or {}, 2.0, {}))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_coin_flip_trader_shows_no_evidence_of_skill(seed: int) -> None:
    report = build(market.given(Plan(seed=seed)))
    assert report.verdict.evidence is Evidence.NONE
    assert "no evidence of skill" in report.verdict.sentence
    assert "random traders" in report.verdict.sentence


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_planted_edge_shows(seed: int) -> None:
    report = build(market.given(Plan(seed=seed, skill=0.3)))
    assert report.verdict.evidence is Evidence.SKILL
    assert report.random is not None
    assert report.random.kinds[0].better_than > 0.99


def test_a_trader_who_is_wrong_on_purpose_is_worse_than_chance() -> None:
    plan = Plan(skill=0.3)
    given = market.given(plan)
    turned = [one if one.return_net is None else one.model_copy(update={"return_net": -one.return_net}) for one in given.outcomes]
    assert build(replace(given, outcomes=turned)).verdict.evidence is Evidence.HARM


def test_buying_at_random_in_a_rising_market_is_not_skill() -> None:
    report = build(market.given(Plan(drift=0.002, long_only=True)))
    assert report.money.expectancy is not None
    assert report.money.expectancy.value > 0
    assert report.hold is not None
    assert report.hold.curve.final > 0
    assert report.verdict.evidence is Evidence.NONE


def test_conviction_that_knows_shows_in_its_calibration() -> None:
    knowing = build(market.given(Plan(conviction_knows=0.6))).calibration
    assert knowing.sentence.startswith("Higher conviction went with higher returns")
    idle = build(market.given(Plan())).calibration
    assert idle.sentence.startswith("Conviction says nothing that can be told from chance")


def test_few_trades_are_said_to_be_few() -> None:
    report = build(market.given(Plan(bars=40, skill=1.0)))
    assert report.verdict.evidence is Evidence.TOO_FEW
    assert "too few" in report.verdict.sentence
    assert report.cautions[0].startswith("Few trades")


def test_no_outcomes_and_no_bars_make_a_whole_report() -> None:
    report = report_of()
    assert report.counts.signals == 0
    assert report.verdict.evidence is Evidence.NOTHING
    assert report.hit_rate is None


def test_no_outcomes_on_a_market_shows_what_holding_made() -> None:
    bars = market.walk(Plan(bars=50))
    report = report_of(bars=bars)
    assert report.hold is not None
    assert set(bars) == set(report.hold.by_symbol)


def test_unfilled_cancelled_and_superseded_are_counted_and_leave_the_hit_rate_alone() -> None:
    report = report_of(
        outcome(number=1, net=0.02, reason=ExitReason.TARGET),
        outcome(number=2, net=-0.01, reason=ExitReason.STOP),
        outcome(number=3, net=-0.03, reason=ExitReason.SUPERSEDED),
        outcome(number=4, net=-0.03, reason=ExitReason.CANCELLED),
        outcome(number=5, net=None, entry=None, entry_ms=None, leave=None, reason=ExitReason.CANCELLED),
        outcome(number=6, net=None, entry=None, entry_ms=None, leave=None, reason=ExitReason.UNFILLED),
    )
    assert report.hit_rate is not None
    assert report.hit_rate.value == 0.5
    assert report.counts.completed == 2
    assert dict(report.counts.closed_early) == {ExitReason.CANCELLED: 1, ExitReason.SUPERSEDED: 1}
    assert dict(report.counts.never_opened) == {ExitReason.CANCELLED: 1, ExitReason.UNFILLED: 1}
    # What a newer signal closed at a loss was lost all the same.
    assert report.money.expectancy is not None
    assert report.money.expectancy.value == pytest.approx(-0.0125)
    assert report.per_position.final == pytest.approx(-0.05)


def test_an_outcome_that_says_it_was_filled_and_not_how_it_did_is_put_aside_and_told() -> None:
    report = report_of(outcome(number=1), outcome(number=2, net=None, reason=ExitReason.STOP))
    assert (report.counts.completed, report.counts.unusable) == (1, 1)
    assert any("1 outcome left out" in caution for caution in report.cautions)


def test_the_first_body_of_a_signal_is_kept() -> None:
    report = report_of(outcome(number=1, net=0.02), outcome(number=1, net=-0.5))
    assert (report.counts.signals, report.counts.duplicates) == (1, 1)
    assert report.per_position.final == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        (["simulator", "simulator"], "NO MODEL WAS ASKED"),
        (["rules", "simulator"], "NO MODEL WAS ASKED"),
        (["llm", "rules"], "NOT ALL ANSWERS ARE A MODEL'S. 1 of 2"),
        (["llm", "llm"], None),
    ],
)
def test_answers_that_are_no_models_are_said_loudly(sources: list[Any], said: str | None) -> None:
    report = report_of(*(outcome(number=number, source=source) for number, source in enumerate(sources)))
    assert (report.banner is None) == (said is None)
    assert (said or "") in (report.banner or "")


def test_past_data_are_said_to_be_known_to_a_model_perhaps() -> None:
    assert any("trained" in caution for caution in report_of(outcome(run_mode=RunMode.REPLAY)).cautions)
    assert not any("trained" in caution for caution in report_of(outcome(run_mode=RunMode.LIVE)).cautions)


def test_open_positions_are_marked_at_each_close_and_share_the_capital() -> None:
    closes = [100.0, 110.0, 90.0, 105.0, 100.0]
    bars = {symbol: hourly(symbol, closes) for symbol in ("A.X1", "B.X1")}
    end = START_MS + 3 * HOUR_MS
    report = report_of(
        outcome(number=1, symbol="A.X1", exit_ms=end, net=0.0496),
        outcome(number=2, symbol="B.X1", long=False, exit_ms=end, net=-0.0504),
        bars=bars,
    )
    assert report.overlap is not None
    assert report.overlap.peak == 2
    # Long and short cancel out but for the costs of 4 basis points each, on half the capital each.
    assert report.over_time.values == pytest.approx([0, -0.0004, -0.0004, -0.0004])
    assert report.hold is not None
    assert report.hold.curve.values == pytest.approx([-0.0004, 0.0996, -0.1004, 0.0496])
    assert report.hold.curve.worst == pytest.approx(0.8996 / 1.0996 - 1)


def test_a_split_is_no_fall_of_the_market() -> None:
    given = market.given(Plan(bars=300))
    at_ms = START_MS + 150 * HOUR_MS
    split = InstrumentEvent(schema_version=1, run_mode=RunMode.DEMO, symbol="AAPL.XNAS", event="split", ratio=2.0, effective_ms=at_ms)
    across = {one.signal_id for one in given.outcomes if (one.ts_entry_ms or 0) < at_ms < one.ts_exit_ms}
    adjusted = replace(given, outcomes=[one for one in given.outcomes if one.signal_id not in across])
    outcomes, bars = _before_a_split(adjusted, at_ms, 2)
    traded, expected = build(replace(adjusted, bars=bars, outcomes=outcomes, restatements=[split, split])), build(adjusted)
    assert traded.over_time.values == pytest.approx(expected.over_time.values, abs=1e-6)
    assert traded.hold is not None
    assert expected.hold is not None
    assert traded.hold.by_symbol == pytest.approx(expected.hold.by_symbol)
    assert traded.verdict == expected.verdict


def test_a_split_that_nobody_published_is_no_fall_of_the_market_either_and_the_report_says_so() -> None:
    given = market.given(Plan(bars=300))
    at_ms = START_MS + 150 * HOUR_MS
    across = {one.signal_id for one in given.outcomes if one.symbol == "AAPL.XNAS" and (one.ts_entry_ms or 0) < at_ms < one.ts_exit_ms}
    outcomes, bars = _before_a_split(given, at_ms, 10)
    over_split = {"exit_reason": ExitReason.CANCELLED, "unscored_reason": "suspected_split", "exit": None, "return_net": None}
    held = [one.model_copy(update=over_split) if one.signal_id in across else one for one in outcomes]
    found = build(replace(given, outcomes=held, bars=bars, max_jump=1.8))
    expected = build(replace(given, outcomes=[one for one in given.outcomes if one.signal_id not in across]))
    assert across
    assert (found.counts.unscored, found.counts.unusable) == (len(across), 0)
    assert found.counts.signals == expected.counts.signals + len(across)
    assert found.over_time.values == pytest.approx(expected.over_time.values, abs=1e-6)
    assert found.hold is not None
    assert expected.hold is not None
    assert found.hold.by_symbol == pytest.approx(expected.hold.by_symbol)
    assert found.random is not None
    assert expected.random is not None
    assert found.random.kinds[1].mean == pytest.approx(expected.random.kinds[1].mean, abs=1e-6)
    assert sum("without a split on record" in one or "held over such a jump" in one for one in found.cautions) == 2


def _before_a_split(given: ReportInput, at_ms: int, ratio: int) -> tuple[list[SignalOutcome], dict[str, list[ReportBar]]]:
    """Return outcomes and bars as they were traded when AAPL was split at `at_ms`."""
    bars = {
        symbol: [scaled(bar, ratio) if symbol == "AAPL.XNAS" and bar.ts_close_ms <= at_ms else bar for bar in of_symbol]
        for symbol, of_symbol in given.bars.items()
    }
    outcomes = [
        one.model_copy(update={"entry": f"{float(one.entry) * ratio:.4f}"})
        if one.entry is not None and one.symbol == "AAPL.XNAS" and (one.ts_entry_ms or 0) < at_ms
        else one
        for one in given.outcomes
    ]
    return outcomes, bars


def test_more_money_never_ranks_lower_among_random_traders() -> None:
    given = market.given(Plan(bars=300))
    ranks = []
    for more in (-0.02, 0.0, 0.001, 0.02):
        richer = [one if one.return_net is None else one.model_copy(update={"return_net": one.return_net + more}) for one in given.outcomes]
        random = build(replace(given, outcomes=richer)).random
        assert random is not None
        ranks.append(random.kinds[0].better_than)
    assert ranks == sorted(ranks)
    assert (ranks[0], ranks[-1]) == (0.0, 1.0)


def test_the_order_of_outcomes_does_not_matter() -> None:
    given = market.given(Plan(bars=200))
    assert build(given) == build(replace(given, outcomes=list(reversed(given.outcomes))))


def test_prices_in_another_unit_change_nothing() -> None:
    given = market.given(Plan(bars=200))
    cents = {symbol: [scaled(bar, 100) for bar in bars] for symbol, bars in given.bars.items()}
    outcomes = [one if one.entry is None else one.model_copy(update={"entry": f"{float(one.entry) * 100:.2f}"}) for one in given.outcomes]
    assert build(replace(given, bars=cents, outcomes=outcomes)).over_time.values == pytest.approx(build(given).over_time.values)


@st.composite
def anything(draw: st.DrawFn) -> ReportInput:
    outcomes = []
    for number in range(draw(st.integers(0, 12))):
        entry_ms = draw(st.one_of(st.none(), st.integers(0, 50 * HOUR_MS)))
        outcomes.append(
            outcome(
                number=draw(st.integers(0, number)),
                symbol=draw(st.sampled_from(["A.X1", "B.X1"])),
                interval=draw(st.sampled_from(["1h", "4h"])),
                long=draw(st.booleans()),
                entry_ms=entry_ms,
                exit_ms=(entry_ms or 0) + draw(st.integers(0, 20 * HOUR_MS)),
                entry=draw(st.one_of(st.none(), st.sampled_from([0.0, 0.0001, 50.0]))),
                net=draw(st.one_of(st.none(), st.floats(-5, 5))),
                conviction=draw(st.floats(0, 1)),
                reason=draw(st.sampled_from(list(ExitReason))),
                bars_held=draw(st.integers(0, 60)),
                source=draw(st.sampled_from(["llm", "rules", "simulator"])),
            )
        )
    bars = {}
    for symbol, interval in (("A.X1", "1h"), ("B.X1", "4h")):
        price, count = draw(st.sampled_from([0.001, 1.0, 1e6])), draw(st.sampled_from([0, 1, 4 if interval == "4h" else 70]))
        bars[symbol] = hourly(symbol, [price * (1 + at % 7) for at in range(count)], HOUR_MS, interval)
    return ReportInput("Anything", outcomes, bars, draw(st.floats(0, 100)), {"Engine": draw(st.text(max_size=10))})


@given(anything())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_comes_in_the_report_is_whole_and_every_number_finite(given: ReportInput) -> None:
    report = build(given)
    assert all(math.isfinite(figure) for figure in figures(report))
    counts = report.counts
    assert counts.signals == counts.opened + sum(counts.never_opened.values()) + counts.unusable
    assert len(given.outcomes) == counts.signals + counts.duplicates
    for part in report.breakdowns:
        assert counts.signals == sum(row.signals for row in part.rows)
        assert counts.opened == sum(row.opened for row in part.rows)
    made = report.per_position.final
    slots = report.overlap.peak if report.overlap else 1
    assert report.over_time.final == pytest.approx(made / slots, abs=1e-6)
