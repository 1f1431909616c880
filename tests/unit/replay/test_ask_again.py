"""An answer that was given again is the same, the same decision in other words, or another one, and then it says in what."""

from __future__ import annotations

import random

from services.core.clock import VirtualClock
from services.replay.ask_again import ask_again, compare
from services.replay.audit_trail import AuditEntry
from services.replay.prompt_rebuilder import PromptRebuilder, RebuiltPrompt
from tests.unit.fusion.desk import ScriptedEngine
from tests.unit.fusion.log import TOKENIZER, Folder, random_logs
from tests.unit.replay.build import SMALL, decide

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


async def test_a_deep_decision_is_asked_for_thought_and_answer_again_with_the_same_seed() -> None:
    thought = "It goes sideways.\n"
    rng = random.Random(2)  # noqa: S311
    folder = Folder(SMALL)
    logs = random_logs(rng, 12)
    folder.feed(logs.market)
    symbol = next(name for name, book in folder.books.by_symbol.items() if book.bars["1m"])
    plan = folder.prompts.plan(folder.book(symbol), "1m", "deep")
    rebuilt = RebuiltPrompt(plan, await folder.prompts.build(plan), None, None, short=False)
    before = (await _entry(f"{thought}</think>\n\n{HOLD}")).record.model_copy(update={"mode": "deep"})
    engine = ScriptedEngine([thought], [HOLD])
    again = await ask_again(AuditEntry("here", before), rebuilt, PromptRebuilder(SMALL, TOKENIZER), engine, VirtualClock())
    assert again.agreement == "identical"
    thinking, answering = engine.requests
    assert thinking.input_ids.tolist() == rebuilt.prompt.ids.tolist()
    assert (thinking.sampling.stop, answering.sampling.stop) == ("</think>", None)
    assert {request.sampling.seed for request in engine.requests} == {before.trigger_id.int % 2**31}
