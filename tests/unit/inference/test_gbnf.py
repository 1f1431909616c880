"""JSON schemas as llama.cpp's grammars, read back as regular expressions."""

from __future__ import annotations

import re

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.fusion.decide.answer import ANSWER_SCHEMA, answer_regex
from services.inference.gbnf import grammar, regex_grammar


def pattern(schema: object) -> re.Pattern[str]:
    """Return the grammar of `schema` as a regular expression: of GBNF it uses literals, classes, choices and repeats."""
    return _read_back(grammar(orjson.dumps(schema).decode()))


def _read_back(made: str) -> re.Pattern[str]:
    rule = made.removeprefix("root ::= ").strip()
    parts = re.findall(r'"((?:[^"\\]|\\.)*)"|(\[(?:[^\]\\]|\\.)+\])|([^"\[]+)', rule)
    unescaped = (re.sub(r"\\(.)", r"\1", literal.replace("\\n", "\n")) for literal, _, _ in parts)
    return re.compile(
        "".join(re.escape(text) or kind or rest.replace(" ", "") for text, (_, kind, rest) in zip(unescaped, parts, strict=True))
    )


@given(st.integers(-300, 1_200), st.integers(0, 1_200), st.integers(-400, 2_500))
def test_a_bounded_integer_takes_the_numbers_within_its_bounds_and_no_other_spelling(low: int, span: int, number: int) -> None:
    rule = pattern({"type": "integer", "minimum": low, "maximum": low + span})
    assert bool(rule.fullmatch(str(number))) == (low <= number <= low + span)
    assert not rule.fullmatch(f"0{number}")
    assert not rule.fullmatch("-0")


@pytest.mark.parametrize(
    ("answer", "fits"),
    [
        ('{"action":"buy","conviction":100,"horizon":99,"entry":-99,"stop":0,"target":12,"rationale":"up, and [so]."}', True),
        ('{"action":"exit","conviction":0,"horizon":1,"rationale":""}', True),
        ('{"action":"abstain","reason":"thin","rationale":"no"}', True),
        ('{"action":"abstain","reason":"","rationale":"no"}', False),
        ('{"action": "exit","conviction":0,"horizon":1,"rationale":""}', False),
        ('{"action":"exit","conviction":101,"horizon":1,"rationale":""}', False),
        ('{"action":"exit","conviction":0,"horizon":0,"rationale":""}', False),
        ('{"action":"exit","conviction":0,"horizon":1,"rationale":"a\\"b"}', False),
        ('{"conviction":0,"action":"exit","horizon":1,"rationale":""}', False),
    ],
)
def test_the_answer_contract_is_kept_to_the_letter(answer: str, fits: bool) -> None:  # noqa: FBT001 - a table
    assert bool(pattern(orjson.loads(ANSWER_SCHEMA)).fullmatch(answer)) == fits


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "number"},
        {"type": "integer", "minimum": 1},
        {"type": "string", "pattern": "^(a|b)+$"},
        {"type": "object", "properties": {"a": {"type": "string"}}, "required": []},
    ],
)
def test_what_has_no_grammar_here_is_refused_by_name(schema: object) -> None:
    with pytest.raises(ValueError, match="has no grammar here"):
        grammar(orjson.dumps(schema).decode())


@given(st.data(), st.booleans())
def test_a_regular_expression_is_the_same_grammar(data: st.DataObject, rationale: bool) -> None:  # noqa: FBT001 - drawn
    regex = answer_regex(rationale=rationale)
    text = data.draw(st.from_regex(regex, fullmatch=True))
    rule = _read_back(regex_grammar(regex))
    assert rule.fullmatch(text)
    damaged = text.replace(" ", "  ", 1)
    assert bool(rule.fullmatch(damaged)) == bool(re.fullmatch(regex, damaged))


@pytest.mark.parametrize("regex", [r"a+", r"a*", r"\d", r".", r"^a$", r"(?=a)", r"[a", r"a\b"])
def test_a_regular_expression_with_what_has_no_grammar_here_is_refused_by_name(regex: str) -> None:
    with pytest.raises(ValueError, match="has no grammar here"):
        regex_grammar(regex)
