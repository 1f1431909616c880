"""Answers: the strict parse, as they stream in, and prices on the tick that are never more generous than what was said."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise
from uuid import UUID

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from schemas import Mode, TickStep
from services.core.fusion_settings import FusionSettings
from services.fusion.decide.answer import (
    ANSWER_SCHEMA,
    RATIONALE_TOKENS,
    Abstain,
    Answer,
    AnswerError,
    AnswerReader,
    Entry,
    Stand,
    after_thought,
    answer_regex,
    answer_schema,
    line_of,
    sampling,
)
from services.fusion.decide.prices import on_tick, prices
from services.inference.engine import Sampling
from tests.unit.fusion.build import instrument

BUY = '{"action":"buy","conviction":62,"horizon":5,"entry":2,"stop":-12,"target":25,"rationale":"a rise"}'
HOLD = '{"action":"hold","conviction":40,"horizon":5,"rationale":"no edge"}'
ABSTAIN = '{"action":"abstain","reason":"thin data, \\"rationale\\": none","rationale":"x"}'
SEED_OF = UUID(int=7)
LINE = "buy 62 5 2 -12 25"
EXPLAINED_LINES = [LINE + "\na rise", "hold 40 5\nno edge", "abstain thin data\n"]


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    """Return an entry on the right side."""
    stop, entry, target = sorted(draw(st.lists(st.integers(-99, 99), min_size=3, max_size=3, unique=True)))
    if draw(st.booleans()):
        return Entry(action="buy", conviction=50, horizon=5, entry=entry, stop=stop, target=target)
    return Entry(action="sell", conviction=50, horizon=5, entry=entry, stop=target, target=stop)


ticks = st.sampled_from(["0.01", "0.05", "0.25", "1", "5", "100", "0.00000001", "0.0001", "0.03", "0.5"])


@settings(max_examples=300, deadline=None)
@given(
    answer=entries(),
    tick=ticks,
    close=st.floats(1e-6, 1e9, allow_nan=False),
    atr_share=st.floats(1e-6, 0.5),
)
def test_prices_lie_on_the_tick_and_on_the_right_side_and_are_never_more_generous(
    answer: Entry, tick: str, close: float, atr_share: float
) -> None:
    side = 1 if answer.action == "buy" else -1
    atr = close * atr_share
    try:
        found = prices(answer, close, atr, instrument(tick=tick))
    except AnswerError as error:
        assert error.reason == "answer_invalid"  # noqa: PT017 - either way is right, depending on the tick
        return
    step, unit, last = Decimal(tick), Decimal(repr(atr)) / 10, Decimal(repr(close))
    entry, stop, target = Decimal(found.entry), Decimal(found.stop), Decimal(found.target)
    for price, said in ((entry, answer.entry), (stop, answer.stop), (target, answer.target)):
        assert price % step == 0
        assert abs(price - (last + said * unit)) < step
        assert "E" not in f"{found}".replace("Entry", "")
    assert min(entry, stop, target) > 0
    assert side * stop < side * entry < side * target
    assert side * entry <= side * (last + answer.entry * unit)
    assert side * stop <= side * (last + answer.stop * unit)
    assert side * target <= side * (last + answer.target * unit)
    assert found.entry_type == ("market" if side * answer.entry >= 0 else "limit")


@pytest.mark.parametrize(
    ("close", "atr", "tick"),
    [(100.0, 0.001, "0.01"), (1.0, 50.0, "0.01"), (100.0, 1e300, "0.01"), (9e11, 9e11, "0.01")],
)
def test_prices_that_collapse_fall_to_zero_or_leave_the_range_are_refused(close: float, atr: float, tick: str) -> None:
    answer = Entry(action="buy", conviction=1, horizon=1, entry=0, stop=-50, target=50)
    with pytest.raises(AnswerError, match="prices") as caught:
        prices(answer, close, atr, instrument(tick=tick))
    assert caught.value.reason == "answer_invalid"


def test_prices_on_a_small_tick_are_written_without_exponent() -> None:
    answer = Entry(action="sell", conviction=1, horizon=1, entry=0, stop=10, target=-10)
    found = prices(answer, 0.0000002, 0.0000001, instrument(tick="0.00000001"))
    assert (found.entry, found.stop, found.target) == ("0.00000020", "0.00000030", "0.00000010")
    assert on_tick(0.00000012, instrument(tick="0.00000001")) == "0.00000012"


def test_each_price_lies_on_the_tick_of_its_own_level() -> None:
    steps = [TickStep(from_price="1000", increment="0.5"), TickStep(from_price="3000", increment="1")]
    tokyo = instrument(tick="0.1").model_copy(update={"tick_table": steps})
    found = prices(Entry(action="sell", conviction=1, horizon=1, entry=0, stop=30, target=-30), 1000.3, 5.0, tokyo)
    assert (found.entry, found.stop, found.target) == ("1000.5", "1015.5", "985.3")
    assert [on_tick(price, tokyo) for price in (999.94, 1000.3, 2999.9, 3000.4)] == ["999.9", "1000.5", "3000.0", "3000"]


def chunked(text: str, cuts: Sequence[int]) -> list[str]:
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[a:b] for a, b in pairwise(places)]


def read(chunks: Sequence[str], *, thinking: bool, finish_reason: str | None = "stop") -> tuple[Answer | None, str | None, Answer | None]:
    """Return the decision as it was first there, why reading failed, and the whole answer."""
    reader = AnswerReader(thinking=thinking)
    try:
        for chunk in chunks:
            reader.feed(chunk)
        whole = reader.finish(finish_reason)
    except AnswerError as error:
        return reader.decision, error.reason, None
    return reader.decision, None, whole


spaces = st.text(" \n\t", max_size=30)
tails = st.sampled_from(["", "}", ',"rationale":"y"}', ',"action":"sell"}', "</think>", " trailing"])


@st.composite
def texts(draw: st.DrawFn) -> str:
    body = draw(
        st.sampled_from(
            [
                BUY,
                HOLD,
                ABSTAIN,
                *EXPLAINED_LINES,
                LINE,
                "sell 62 5 2 -12 25\n",
                "buy sixty\n",
                BUY.replace("-12", "12"),
                BUY.replace("62", '"62"'),
                "no JSON, no cry",
                "",
                "[]",
            ]
        )
    )
    body = body.replace(',"rationale":', "," + draw(spaces) + '"rationale"' + draw(spaces) + ":")
    return (
        draw(st.sampled_from(["", "thought</think>", "a </think> b </think>"]))
        + body[: draw(st.integers(0, len(body)))]
        + draw(tails)
        + body
    )


@settings(max_examples=300, deadline=None)
@given(
    text=texts() | st.sampled_from([BUY, HOLD, ABSTAIN, LINE, *EXPLAINED_LINES]),
    cuts=st.lists(st.integers(0, 2_000), max_size=30),
    thinking=st.booleans(),
)
@example(text=HOLD.replace(',"r', "," + " " * 50 + '"r'), cuts=list(range(200)), thinking=False)
@example(text="x</think>" + BUY.replace("a rise", "</think>"), cuts=list(range(200)), thinking=True)
def test_an_answer_reads_alike_however_it_is_cut(text: str, cuts: list[int], *, thinking: bool) -> None:
    whole, cut = read([text], thinking=thinking), read(chunked(text, cuts), thinking=thinking)
    assert cut[:2] == whole[:2]
    assert cut[2] == whole[2]


def test_the_decision_is_there_before_the_rationale() -> None:
    reader = AnswerReader(thinking=False)
    head, _, rest = BUY.partition("a rise")
    assert reader.feed(head)
    assert reader.decision == Entry(action="buy", conviction=62, horizon=5, entry=2, stop=-12, target=25)
    assert not reader.feed(rest)
    assert not reader.feed("a rise" + rest)


def test_the_decision_of_a_line_is_there_with_its_line_break() -> None:
    reader = AnswerReader(thinking=False)
    assert not reader.feed(LINE)
    assert reader.feed("\n")
    assert reader.decision == Entry(action="buy", conviction=62, horizon=5, entry=2, stop=-12, target=25)
    assert not reader.feed("a rise")
    assert reader.finish("length").rationale == "a rise"


@pytest.mark.parametrize("finish", ["length", "abort", None])
def test_a_line_without_its_end_is_no_decision_unless_the_engine_says_that_the_answer_ended(finish: str | None) -> None:
    cut = LINE.replace("25", "35")[:-1]
    assert _finish(cut, "stop") == Entry(action="buy", conviction=62, horizon=5, entry=2, stop=-12, target=3)
    with pytest.raises(AnswerError, match="answer_cut_off"):
        _finish(cut, finish)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), rationale=st.booleans())
def test_every_text_that_the_regex_admits_is_a_valid_answer(data: st.DataObject, *, rationale: bool) -> None:
    text = data.draw(st.from_regex(answer_regex(rationale=rationale), fullmatch=True))
    answer = _finish(text, "stop")
    assert line_of(answer) == text.partition("\n")[0].rstrip()


words = st.from_regex(r"[!#-\[\]-~]([ !#-\[\]-~]{0,78}[!#-\[\]-~])?", fullmatch=True)


@st.composite
def admitted(draw: st.DrawFn) -> Answer:
    """Return a decision with levels that the grammar has: an entry nearer than one ATR, the others further away unless it is 0."""
    conviction, horizon = draw(st.integers(0, 100)), draw(st.integers(1, 99))
    kind, first = draw(st.sampled_from([Entry, Stand, Abstain])), draw(st.booleans())
    if kind is Abstain:
        return Abstain(action="abstain", reason=draw(words))
    if kind is Stand:
        return Stand(action="exit" if first else "hold", conviction=conviction, horizon=horizon)
    entry, side = draw(st.integers(-9, 9)), 1 if first else -1
    beyond = st.integers(1 if entry == 0 else 10, 99)
    return Entry(
        action="buy" if first else "sell",
        conviction=conviction,
        horizon=horizon,
        entry=entry,
        stop=-side * draw(beyond),
        target=side * draw(beyond),
    )


@settings(max_examples=300, deadline=None)
@given(answer=admitted())
def test_every_decision_within_the_grammars_levels_is_a_line_that_the_regex_admits(answer: Answer) -> None:
    assert re.fullmatch(answer_regex(rationale=False), line_of(answer))
    assert _finish(line_of(answer), "stop") == answer


@settings(max_examples=300, deadline=None)
@given(answer=entries())
def test_every_decision_is_a_line_that_reads_back_as_itself(answer: Entry) -> None:
    assert _finish(line_of(answer), "stop") == answer


def test_an_answer_is_sampled_under_the_grammar_of_its_form_with_room_for_its_rationale() -> None:
    def sampled(mode: Mode = "fast", **settings: object) -> Sampling:
        return sampling(FusionSettings.model_validate(settings), mode, SEED_OF)

    line, bare, json = sampled(), sampled(rationale="none"), sampled(answer_form="json", rationale="none")
    assert (line.regex, line.json_schema) == (answer_regex(rationale=True), None)
    assert (bare.regex, bare.json_schema) == (answer_regex(rationale=False), None)
    assert (json.regex, json.json_schema) == (None, answer_schema(rationale=False))
    assert after_thought(FusionSettings(), SEED_OF) == bare
    assert line.max_new_tokens - bare.max_new_tokens == RATIONALE_TOKENS
    for free in (sampled(grammar=False), sampled("deep")):
        assert (free.regex, free.json_schema) == (None, None)


def test_a_thought_does_not_count_as_answer() -> None:
    reader = AnswerReader(thinking=True)
    assert not reader.feed(HOLD)
    assert not reader.feed("</thi")
    assert reader.feed("nk>" + HOLD)
    assert isinstance(reader.decision, Stand)


@pytest.mark.parametrize(
    ("text", "finish", "reason"),
    [
        ("I would buy.", "stop", "answer_malformed"),
        ("", "stop", "answer_malformed"),
        (BUY[:40], "length", "answer_cut_off"),
        (BUY[:40], "stop", "answer_malformed"),
        ('{"action":"dance"}', "stop", "answer_invalid"),
        ('{"action":"buy","conviction":1}', "stop", "answer_invalid"),
        (BUY.replace('"conviction":62', '"conviction":101'), "stop", "answer_invalid"),
        (BUY.replace('"conviction":62', '"conviction":NaN'), "stop", "answer_malformed"),
        (BUY.replace('"conviction":62', '"conviction":62.5'), "stop", "answer_invalid"),
        (BUY.replace('"conviction":62', '"conviction":true'), "stop", "answer_invalid"),
        (HOLD.replace("}", ',"size":5}'), "stop", "answer_invalid"),
        (BUY.replace("-12", "12"), "stop", "answer_invalid"),
        (BUY.replace('"buy"', '"sell"'), "stop", "answer_invalid"),
        (BUY + BUY, "stop", "answer_malformed"),
        ("\ud800", "stop", "answer_malformed"),
        ("Buy 62 5 2 -12 25", "stop", "answer_malformed"),
        ("buy 62 5 2 -12 2.5", "stop", "answer_malformed"),
        ("buy 62 5 2 -12  25", "stop", "answer_malformed"),
        ("buy 62 5 2 -12 \u0662\u0665", "stop", "answer_malformed"),
        ("buy", "stop", "answer_malformed"),
        ("I say:\nbuy 62 5 2 -12 25", "stop", "answer_malformed"),
        ("buy 62 5 2 -12", "stop", "answer_invalid"),
        ("hold 40 5 2 -12 25", "stop", "answer_invalid"),
        ("buy 101 5 2 -12 25", "stop", "answer_invalid"),
        ("buy 62 0 2 -12 25", "stop", "answer_invalid"),
        ("buy 62 5 2 -12 999999", "stop", "answer_invalid"),
        ("buy 62 5 2 12 25", "stop", "answer_invalid"),
        ("sell 62 5 2 -12 25", "stop", "answer_invalid"),
        ("abstain", "stop", "answer_invalid"),
        ("buy 62 5 2", "length", "answer_cut_off"),
        (ABSTAIN.replace("thin data", "x" * 300), "stop", "answer_invalid"),
    ],
)
def test_what_is_neither_the_line_nor_the_object_asked_for_is_an_error_with_its_reason(text: str, finish: str, reason: str) -> None:
    with pytest.raises(AnswerError) as caught:
        AnswerReader(thinking=False).finish(finish) if not text else _finish(text, finish)
    assert caught.value.reason == reason


def _finish(text: str, finish: str | None) -> Answer:
    reader = AnswerReader(thinking=False)
    reader.feed(text)
    return reader.finish(finish)


def test_the_grammar_lets_through_just_what_the_parse_takes() -> None:
    schema = orjson.loads(ANSWER_SCHEMA)
    validator = Draft202012Validator(schema)
    for text in (BUY, HOLD, ABSTAIN):
        assert validator.is_valid(orjson.loads(text.replace(chr(92) + chr(34), "")))
        assert _finish(text, "stop")
    assert not validator.is_valid({"action": "buy", "rationale": ""})
    assert isinstance(_finish(ABSTAIN, "stop"), Abstain)
