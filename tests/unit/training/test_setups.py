"""Setups turn on the signs and leading digits of facts, and their sentences quote the prompt's own numbers."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.fusion.decide.answer import AnswerReader, Entry, answer_regex
from services.inference.rules import written
from services.training.setups import Setup, decide, reason, sentence, setup_of

UP = {"close": 100.0, "atr": 2.0, "rsi": 56.0, "macd_hist": 0.2, "ret_5": 120.0}
DOWN = UP | {"rsi": 44.0, "macd_hist": -0.2, "ret_5": -120.0}

_facts = st.fixed_dictionaries(
    {
        "close": st.floats(1, 1_000),
        "atr": st.floats(0, 50),
        "rsi": st.floats(0, 100),
        "macd_hist": st.floats(-9, 9),
        "ret_5": st.floats(-2_000, 2_000),
    }
)


@pytest.mark.parametrize(
    ("facts", "setup"),
    [
        (UP, Setup("buy", "momentum", 1)),
        (UP | {"rsi": 66.0}, Setup("buy", "momentum", 0)),
        (DOWN, Setup("sell", "momentum", 1)),
        (DOWN | {"rsi": 33.0}, Setup("sell", "momentum", 0)),
        (DOWN | {"rsi": 25.0}, Setup("buy", "reversal", 0)),
        (UP | {"rsi": 75.0}, Setup("sell", "reversal", 0)),
        (UP | {"ret_5": -5.0}, None),
        (UP | {"rsi": 47.0}, None),
        (UP | {"atr": 0.0}, None),
        ({"close": 1.0}, None),
    ],
)
def test_each_setup_is_found_and_nothing_else(facts: dict[str, float], setup: Setup | None) -> None:
    assert setup_of(facts) == setup


@given(_facts)
def test_every_decision_fits_the_grammar_and_the_contract(facts: dict[str, float]) -> None:
    regex = answer_regex(rationale=True)
    text = written(decide(facts), regex)
    assert re.fullmatch(regex, text)
    reader = AnswerReader(thinking=False)
    reader.feed(text)
    answer = reader.finish("stop")
    setup = setup_of(facts)
    assert answer.action == ("abstain" if setup is None else setup.side)
    assert isinstance(answer, Entry) == (setup is not None)


@given(_facts)
def test_a_sentence_holds_numbers_of_the_prompt_alone(facts: dict[str, float]) -> None:
    texts = {name: f"{value:+.1f}" if name == "ret_5" else f"{value:.2f}" for name, value in facts.items()}
    setup = setup_of(facts)
    said = sentence(setup, facts, texts)
    assert len(said) <= 160
    assert set(re.findall(r"(?<![\w.])[+-]?[0-9]+\.[0-9]+", said)) <= set(texts.values())
    assert re.fullmatch(answer_regex(rationale=True), f"abstain {reason(setup, facts)}\n{said}")


def test_a_missing_fact_is_named() -> None:
    assert setup_of({"close": 1.0}) is None
    assert reason(None, {"close": 1.0, "atr": 1.0}) == "rsi is unknown"
    assert "Not enough facts" in sentence(None, {"close": 1.0}, {})
