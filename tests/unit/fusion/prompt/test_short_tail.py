"""The short tail of mode `flash`: the facts of the other modes' tail in fewer tokens, in the order that the rules name."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.fusion.prompt import wording
from services.fusion.prompt.rules import rules
from services.fusion.prompt.short_tail import flash_text, short_facts, short_legend, short_tail
from services.strategy.folder import shipped
from services.strategy.model import Strategy
from tests.unit.fusion.build import tokenizer
from tests.unit.fusion.prompt.golden import MARKETS, planned

QUESTION = "buy, sell, exit or hold?\n"
NOW = "Now Tue 2024-07-02 16:00, session closed.\n"


def short(tail: str, own: Strategy | None = None, *, daily: bool = False) -> str:
    return short_tail(tail, own or shipped(), daily=daily, question="")


@pytest.mark.parametrize("name", MARKETS)
def test_a_prompt_of_mode_fast_is_made_into_the_one_that_the_worker_asks_in_mode_flash(name: str) -> None:
    (fast, asked), (flash, planned_flash) = planned(MARKETS[name]), planned(MARKETS[name], "flash")
    system, user = fast.text(asked)
    told = flash.text(planned_flash)
    assert told == (
        rules(shipped(), "line", flash=True),
        flash_text(user.removesuffix(wording.EXPLAINED_QUESTION["line"]), shipped(), QUESTION),
    )
    assert told[0].startswith(system)


@pytest.mark.parametrize("name", MARKETS)
def test_what_is_new_beside_bars_has_fewer_than_six_tenths_of_the_tokens(name: str) -> None:
    tails = [planned(MARKETS[name], mode)[1].tail for mode in ("fast", "flash")]
    long, brief = (
        sum(len(tokenizer().encode(line)) for line in tail.splitlines(keepends=True) if " partial " not in line) for tail in tails
    )
    assert brief < 0.6 * long


@pytest.mark.parametrize("name", MARKETS)
def test_every_number_is_that_of_the_other_modes(name: str) -> None:
    long, brief = (planned(MARKETS[name], mode)[1].tail for mode in ("fast", "flash"))
    facts = next(line for line in brief.splitlines() if line.startswith("Facts "))
    said = dict(part.split("=") for part in re.findall(r"\w+=\S+", long))
    assert facts.split()[1:] == [said.get(fact, "--") for fact in short_facts(shipped())]


@given(known=st.sets(st.sampled_from(list(shipped().fact_of))))
def test_each_fact_keeps_its_place_whichever_others_are_unknown(known: set[str]) -> None:
    line = wording.facts_row([f"{name}={place}" for place, name in enumerate(shipped().fact_of) if name in known])
    places = {name: str(place) for place, name in enumerate(shipped().fact_of)}
    assert short(line) == f"Facts {' '.join(places[name] if name in known else '--' for name in short_facts(shipped()))}\n"


def test_the_legend_names_the_facts_in_their_order_and_those_of_the_row() -> None:
    legend = short_legend(shipped())
    assert ", ".join(short_facts(shipped())) in legend
    assert "close and rsi as in the last row" in legend
    own = Strategy.model_validate(shipped().model_dump() | {"name": "own", "columns": ["open", "volume"]})
    assert "close, atr, rsi, ema_fast" in short_legend(own)
    assert "last row" not in short_legend(own)
    without = Strategy.model_validate(shipped().model_dump() | {"name": "own", "facts": []})
    assert "Facts" not in short_legend(without)


@pytest.mark.parametrize(
    ("long", "brief", "brief_of_days"),
    [
        (NOW, "Now Tue 0702 closed\n", "Now Tue closed\n"),
        (
            "Now Tue 2024-07-02 12:30, session open until Wed 17:00.\n",
            "Now Tue 0702 open until Wed 17:00\n",
            "Now Tue open until Wed 17:00\n",
        ),
        ("Now Mon 2024-07-01 00:12, session trades at all hours.\n", "Now Mon 0701\n", "Now Mon\n"),
        ("Now day -12 16:00, session open until 16:00.\n", "Now day -12 open until 16:00\n", "Now day -12 open until 16:00\n"),
        ("Chart reader: absent.\n", "No chart\n", "No chart\n"),
        ("Chart reader, stale by 120 s, 60 bars of 5m: no pattern.\n", "Chart 60 stale by 120 s: no pattern\n", None),
        (
            "Chart reader, fresh, 20 bars of 1h: hammer 0.60 on bars 19 to 19, doji 0.50 on bars 3 to 4; a rise over its horizon 0.500.\n",
            "Chart 20: hammer 0.60 19 to 19, doji 0.50 3 to 4; rise 0.500\n",
            None,
        ),
        (
            "Chart reader, fresh, 20 bars of 1h: no pattern; a rise over the next 5 bars 0.570.\n",
            "Chart 20: no pattern; rise in 5 0.570\n",
            None,
        ),
        ("1h partial 1330 721634.16 +0005 +0012 -0016 18e0 51\n", "1h partial 1330 721634.16 +0005 +0012 -0016 18e0 51\n", None),
    ],
)
def test_each_line_says_in_fewer_words_what_the_long_one_says(long: str, brief: str, brief_of_days: str | None) -> None:
    assert short(long) == brief
    assert short(long, daily=True) == (brief if brief_of_days is None else brief_of_days)
