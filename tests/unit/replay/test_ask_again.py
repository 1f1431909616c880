"""An answer that was given again is the same, the same decision in other words, or another one, and then it says in what."""

from __future__ import annotations

import random

from services.replay.ask_again import compare
from services.replay.audit_trail import AuditEntry
from tests.unit.fusion.log import random_logs
from tests.unit.replay.build import decide

HOLD = '{"action":"hold","conviction":40,"horizon":5,"rationale":"as it was"}'


async def _entry(answer: str = HOLD) -> AuditEntry:
    rng = random.Random(2)  # noqa: S311
    decided = await decide(rng, random_logs(rng, 12))
    return AuditEntry("here", decided.audits[0].model_copy(update={"answer": answer}))


async def test_the_same_letters_are_the_same() -> None:
    assert compare(await _entry(), HOLD).agreement == "identical"


async def test_another_rationale_is_the_same_decision() -> None:
    again = compare(await _entry(), HOLD.replace("as it was", "as it is"))
    assert (again.agreement, list(again.differences)) == ("same decision", [])


async def test_what_differs_is_named_with_both_values() -> None:
    buy = '{"action":"buy","conviction":62,"horizon":5,"entry":2,"stop":-12,"target":25,"rationale":""}'
    again = compare(await _entry(), buy)
    assert again.agreement == "different"
    assert list(again.differences) == [
        "action hold -> buy",
        "conviction 40 -> 62",
        "entry none -> 2",
        "stop none -> -12",
        "target none -> 25",
    ]


async def test_an_answer_that_does_not_parse_is_another_one_and_says_why() -> None:
    assert list(compare(await _entry(), "certainly!").differences) == ["an answer before, answer_malformed now"]
    assert list(compare(await _entry("what?"), HOLD).differences) == ["answer_malformed before, hold now"]
