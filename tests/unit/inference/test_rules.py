"""The fixed rules, and the simulator's answers made with them, keep the answer contract."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.clock import VirtualClock
from services.core.tokenizer import Tokenizer
from services.inference.engine import EngineError, EngineRequest, Sampling
from services.inference.rules import NEEDED, RulesEngine, decide
from services.inference.simulator.answers import VOICE, Author
from tests.unit.fusion.prompt.golden import MARKETS, planned

TOKENIZER = Tokenizer.from_file(Path("services/inference/data/tokenizer.json"))
AUTHOR = Author(TOKENIZER)
NUMBERS = st.floats(-1e6, 1e6)
VIEWS = st.fixed_dictionaries(dict.fromkeys(NEEDED, NUMBERS), optional={"p_up": st.floats(0, 1), "volume_z": NUMBERS})
RISING = {"close": 100.0, "atr": 2.0, "rsi": 60.0, "ema_fast": 102.0, "ema_slow": 100.0}


def request(view: dict[str, float], deadline_ms: int = 1_000) -> EngineRequest:
    return EngineRequest("0" * 32, "A", "fast", np.zeros(3, np.int32), Sampling(10), deadline_ms, lambda: ("", ""), view)


@given(VIEWS)
def test_every_answer_keeps_the_contract(view: dict[str, float]) -> None:
    answer = decide(view)
    keys = {
        "buy": ["action", "conviction", "horizon", "entry", "stop", "target", "rationale"],
        "hold": ["action", "conviction", "horizon", "rationale"],
        "abstain": ["action", "reason", "rationale"],
    }
    action = answer["action"]
    assert keys[{"sell": "buy", "exit": "hold"}.get(action, action)] == list(answer)
    assert len(answer["rationale"]) <= 160
    if action != "abstain":
        assert 0 <= answer["conviction"] <= 100
        assert 1 <= answer["horizon"] <= 99
    if action in {"buy", "sell"}:
        side = 1 if action == "buy" else -1
        assert -99 <= side * answer["stop"] < 0 < side * answer["target"] <= 99
        assert side * answer["stop"] < side * answer["entry"] < side * answer["target"]


@pytest.mark.parametrize("name", NEEDED)
def test_without_a_value_it_needs_there_is_no_view(name: str) -> None:
    answer = decide({key: value for key, value in RISING.items() if key != name})
    assert (answer["action"], answer["reason"]) == ("abstain", f"missing: {name}")


@pytest.mark.parametrize(
    ("change", "action"),
    [
        ({}, "buy"),
        ({"ema_fast": 98.0, "rsi": 40.0}, "sell"),
        ({"rsi": 85.0}, "exit"),
        ({"ema_fast": 100.0, "rsi": 50.0}, "hold"),
        ({"p_up": 0.1, "rsi": 50.0}, "hold"),
        ({"atr": 0.0}, "abstain"),
    ],
)
def test_the_rules_follow_the_trend(change: dict[str, float], action: str) -> None:
    assert action == decide(RISING | change)["action"]


async def test_the_rules_engine_answers_in_one_chunk_and_not_after_the_deadline() -> None:
    engine = RulesEngine(VirtualClock(500))
    (chunk,) = [chunk async for chunk in engine.stream(request(RISING))]
    assert decide(RISING) == orjson.loads(chunk.text)
    assert chunk.usage is not None
    with pytest.raises(EngineError, match="engine_timeout"):
        _ = [chunk async for chunk in engine.stream(request(RISING, deadline_ms=500))]
    assert (await engine.info()).source == "rules"


@given(VIEWS.filter(lambda view: all(abs(value) >= 1e-4 or value == 0 for value in view.values())))
def test_the_simulator_finds_the_facts_in_the_tail_and_says_what_it_is(view: dict[str, float]) -> None:
    printed = {name: f"{value:.4f}" for name, value in view.items()}
    text = "rsi=1 atr=1\n" + "Facts: " + " ".join(f"{name}={number}" for name, number in printed.items()) + "\nWhat now?\n"
    answer = AUTHOR.answer(TOKENIZER.encode(text))
    expected = decide({name: float(number) for name, number in printed.items()}, voice=VOICE)
    assert expected == orjson.loads(answer.text)
    assert "imulator" in orjson.loads(answer.text)["rationale"]
    assert answer.text == answer.text_at(answer.ids.size)
    assert TOKENIZER.decode(answer.ids) == answer.text + "<|im_end|>"


def test_facts_outside_the_tail_are_not_seen() -> None:
    facts = TOKENIZER.encode("close=100 atr=2 rsi=60 ema_fast=102 ema_slow=100\n")
    rest = np.full(1_500, TOKENIZER.encode("\n")[0], np.int32)
    assert orjson.loads(AUTHOR.answer(np.concatenate([facts, rest])).text)["action"] == "abstain"


@pytest.mark.parametrize(("end", "thinks"), [("<think>\n", True), ("<think>\n\n</think>\n\n", False), ("", False)])
def test_an_opened_thought_is_finished_before_the_answer(end: str, thinks: bool) -> None:  # noqa: FBT001
    text = AUTHOR.answer(TOKENIZER.encode(f"close=100 atr=2 rsi=60 ema_fast=102 ema_slow=100\n{end}")).text
    thought, closed, body = text.rpartition("</think>")
    assert thinks == bool(closed)
    assert orjson.loads(body)["action"] == "buy"
    assert thinks == ("simulator" in thought)


@pytest.mark.parametrize("name", MARKETS)
async def test_the_simulator_reads_the_same_facts_in_mode_flash_as_in_mode_fast(name: str) -> None:
    read = []
    for mode in ("fast", "flash"):
        builder, plan = planned(MARKETS[name], mode)
        read.append(AUTHOR._read((await builder.build(plan)).ids)[1])
    fast, flash = read
    assert set(NEEDED) <= set(fast)
    # A fact with a plus sign is read where it has no name only; the rules need none of those.
    assert {fact: flash[fact] for fact in fast} == {**fast, "rsi": pytest.approx(fast["rsi"], abs=0.5)}
