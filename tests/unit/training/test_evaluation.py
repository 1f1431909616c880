"""A test's figures stand beside the majority and the rule, and a rationale counts as true only with the prompt's own numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.fusion.decide.answer import AnswerError, AnswerReader
from services.training.evaluation import Asked, judge
from tests.unit.training.build import example

FACTS = {"macd_hist": "0.21", "ret_5": "+120.3", "rsi": "56.1"}


def asked(number: int, text: str, *, taught: str, rule: str, made: float | None) -> Asked:
    one = example(number, part="test")
    about = replace(one.about, action=taught, rule=rule, return_net=made, paid=None if made is None else made > 0)
    reader = AnswerReader(thinking=False)
    try:
        reader.feed(text)
        answer, error = reader.finish("stop"), None
    except AnswerError as failure:
        answer, error = None, str(failure)
    return Asked(replace(one, about=about), text, answer, error, None, FACTS)


def test_figures_of_a_model_that_takes_the_paying_half() -> None:
    rows = []
    for number in range(120):
        pays = number % 2 == 0
        text = "buy 100 10 3 -25 20\nrsi is 56.1." if pays else "abstain no\nrsi is 56.1."
        rows.append(asked(number, text, taught="buy" if pays else "abstain", rule="buy", made=0.01 if pays else -0.01))
    figures = judge(rows)
    assert figures["valid"][0] == figures["accuracy_model"][0] == 1.0
    assert figures["accuracy_rule"][0] == figures["accuracy_majority"][0] == 0.5
    assert figures["return_bps_model"][0] == pytest.approx(50.0)
    assert figures["return_bps_rule"][0] == pytest.approx(0.0)
    assert figures["return_bps_model_less_rule"][1] > 0
    assert (figures["positions"], figures["mean_conviction"], figures["paid"][0]) == (60, 1.0, 1.0)
    assert figures["rationales_true_to_the_prompt"][0] == 1.0


@pytest.mark.parametrize(
    ("rationale", "true"),
    [
        ("Momentum up: macd_hist 0.21 and ret_5 +120.3 are positive, rsi 56.1 leaves room.", True),
        ("macd_hist is 0.22.", False),
        ("rsi is 0.21.", False),
        ("ret_5 is 120.3.", False),
        ("", False),
    ],
)
def test_a_rationale_is_true_with_the_prompt_s_numbers_under_their_names(rationale: str, true: bool) -> None:  # noqa: FBT001 - a parameter
    rows = [asked(number, f"abstain no\n{rationale}", taught="abstain", rule="abstain", made=None) for number in range(3)]
    assert judge(rows)["rationales_true_to_the_prompt"][0] == float(true)


@pytest.mark.parametrize(
    ("rationale", "agrees"),
    [
        ("Momentum up: macd_hist 0.21 and ret_5 +120.3 are positive, rsi 56.1 leaves room.", True),
        ("Momentum up: macd_hist 0.21 and ret_5 -120.3 are positive, rsi 56.1 leaves room.", False),
        ("Momentum up: macd_hist 0.21 and ret_5 +120.3 are positive, rsi 66.1 leaves room.", False),
        ("Momentum down: macd_hist -2.1 and ret_5 -99.0 are negative, rsi 31.0 is low.", True),
        ("Mixed: macd_hist is 0.16 but ret_5 is -248.4, with rsi at 48.8.", True),
        ("Mixed: macd_hist is 0.16 but ret_5 is +248.4, with rsi at 48.8.", False),
        ("Unconfirmed: macd_hist is 0.16 and ret_5 +248.4, but rsi is 48.8.", True),
        ("Oversold: rsi is 28.1 after a ret_5 of -12.0.", True),
        ("Overbought: rsi is 28.1 after a ret_5 of -12.0.", False),
        ("The trend is my friend.", False),
    ],
)
def test_a_rationale_agrees_when_its_words_say_what_its_numbers_do(rationale: str, agrees: bool) -> None:  # noqa: FBT001 - a parameter
    rows = [asked(number, f"abstain no\n{rationale}", taught="abstain", rule="abstain", made=None) for number in range(3)]
    assert judge(rows)["rationales_agree_with_their_numbers"][0] == float(agrees)


def test_an_answer_that_is_not_valid_counts_and_makes_nothing() -> None:
    rows = [asked(number, "perhaps", taught="buy", rule="buy", made=0.02) for number in range(30)]
    figures = judge(rows)
    assert figures["valid"][0] == figures["accuracy_model"][0] == figures["return_bps_model"][0] == 0.0
    assert figures["said"] == {"not valid": 30}
