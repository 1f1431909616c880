"""The teacher keeps what paid and has a fact on its side, abstains where nothing paid, and leaves out what it cannot judge."""

from __future__ import annotations

from services.training.teacher import Facts, Row, TrackRecord, teach

FACTS = "Facts: close=100.00 atr=2.00 rsi=56.1 ret_1=+12.0 ret_5=+120.3 macd_hist=0.21 bb_pos=0.80\n"


def row(answer: str, made: float | None, *, facts: str = FACTS, source: str = "rules", name: str = "a", time: str = "2009-01-02") -> Row:
    return Row(name, time, "AAPL.XNAS", "fast", "rules", f"bars\n{facts}Chart reader: absent.\nask\n", answer, source, "hash", made)


EVEN = TrackRecord([])


def test_an_answer_that_paid_is_kept_with_the_reason_that_the_facts_give() -> None:
    taught = teach([row("buy 50 10 3 -25 20\nMomentum setup.", 0.02)], EVEN)
    assert taught is not None
    assert (taught.line, taught.action, taught.rule, taught.paid) == ("buy 50 10 3 -25 20", "buy", "buy", True)
    assert taught.rationale == "Momentum up: macd_hist 0.21 and ret_5 +120.3 are positive, rsi 56.1 leaves room."


def test_where_nothing_paid_the_teacher_abstains() -> None:
    taught = teach([row("buy 50 10 3 -25 20\nMomentum setup.", -0.01)], EVEN)
    assert taught is not None
    assert (taught.line, taught.paid, taught.return_net) == ("abstain momentum up, odds about even", False, -0.01)


def test_of_several_answers_to_one_prompt_the_one_that_made_most_is_kept() -> None:
    rows = [row("buy 50 10 3 -25 20\nx", 0.01), row("buy 50 5 2 -12 25\nx", 0.03), row("sell 50 10 -3 25 -20\nx", -0.03)]
    taught = teach(rows, EVEN)
    assert taught is not None
    assert taught.line == "buy 50 5 2 -12 25"


def test_hindsight_without_a_fact_on_its_side_is_not_taught() -> None:
    taught = teach([row("sell 50 10 -3 25 -20\nx", 0.05)], EVEN)
    assert taught is not None
    assert taught.action == "abstain"
    assert taught.rule == "buy"


def test_a_model_s_own_rationale_stays_where_its_answer_paid() -> None:
    taught = teach([row("buy 70 10 3 -25 20\nVolume rises with the close.", 0.02, source="llm")], EVEN)
    assert taught is not None
    assert taught.rationale == "Volume rises with the close."


def test_a_position_that_was_never_filled_is_left_out() -> None:
    assert teach([row("buy 50 10 3 -25 20\nMomentum setup.", None)], EVEN) is None


def test_a_hold_is_kept_and_an_abstention_is_given_its_reason() -> None:
    held = teach([row("hold 40 5\nx", None)], EVEN)
    assert held is not None
    assert (held.line, held.paid) == ("hold 40 5", None)
    stood = teach([row("abstain no setup\nNo setup.", None, facts=FACTS.replace("+120.3", "-12.0"))], EVEN)
    assert stood is not None
    assert (stood.line, stood.rationale) == (
        "abstain momentum is mixed",
        "Mixed: macd_hist is 0.21 but ret_5 is -12.0, with rsi at 56.1.",
    )


def judged(count: int, lost: float) -> list[Row]:
    """Return as many positions of one kind on as many days, three of four of which made 0.01 and the others `lost`."""
    return [row("buy 50 10 3 -25 20\nx", 0.01 if day % 4 else lost, name=str(day), time=f"day {day}") for day in range(count)]


def test_a_conviction_is_how_often_such_answers_paid() -> None:
    record = TrackRecord.of(judged(40, -0.01))
    assert record.percent(("buy", "momentum", "1")) == 75
    assert record.percent(("sell", "momentum", "1")) == 75  # none counted: all that were judged
    assert EVEN.percent(("buy",)) == 50


def test_the_same_position_in_prompts_of_several_lengths_counts_once() -> None:
    rows = judged(40, -0.01)
    assert TrackRecord.of([*rows, *(one for one in rows if one.return_net == -0.01)]).percent(("buy",)) == 75


def test_teacher_kind_keeps_a_losing_position_of_a_kind_that_made_money() -> None:
    taught = teach([row("buy 50 10 3 -25 20\nx", -0.01)], TrackRecord.of(judged(40, -0.02)), "kind")
    assert taught is not None
    assert (taught.line, taught.paid, taught.return_net) == ("buy 75 10 3 -25 20", False, -0.01)
    assert taught.rationale.startswith("Momentum up: macd_hist 0.21")


def test_teacher_kind_abstains_from_a_winning_position_of_a_kind_that_lost_money() -> None:
    taught = teach([row("buy 50 10 3 -25 20\nx", 0.01)], TrackRecord.of(judged(40, -0.04)), "kind")
    assert taught is not None
    assert (taught.action, taught.rule, taught.paid) == ("abstain", "buy", True)


def test_teacher_kind_judges_a_position_that_was_never_filled() -> None:
    taught = teach([row("buy 50 10 3 -25 20\nx", None)], TrackRecord.of(judged(40, -0.02)), "kind")
    assert taught is not None
    assert (taught.action, taught.paid) == ("buy", None)


def test_facts_are_read_as_the_prompt_writes_them() -> None:
    facts = Facts.of(f"x\n{FACTS}")
    assert facts.values["ret_5"] == 120.3
    assert facts.texts["ret_5"] == "+120.3"
    assert Facts.of("no facts here\n") == ({}, {})
