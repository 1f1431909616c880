"""When each piece of an answer arrived is in its audit record: of the answer that counts, at a bounded size."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from schemas import MAX_ANSWER_CHARACTERS, MAX_ANSWER_CHUNKS, AuditRecord, is_intact
from services.fusion.observe.result import coalesced
from services.inference.engine import EngineError
from tests.unit.fusion.build import bar
from tests.unit.fusion.desk import BUY, NONSENSE, Desk, ScriptedEngine

HEAD, TAIL = BUY[:20], BUY[20:]
THOUGHT = "It rises.\n"


async def decided(*scripts: list[str | int | EngineError], deep: bool = False) -> AuditRecord:
    """Return the audit record of one decision; an integer in a script is the milliseconds that pass."""
    desks: list[Desk] = []

    def passing(ms: int) -> Callable[[], None]:
        return lambda: desks[0].clock.advance_to(desks[0].clock.now_ms() + ms)

    engine = ScriptedEngine(*[[passing(step) if isinstance(step, int) else step for step in script] for script in scripts])
    fusion: dict[str, Any] = {"deep_every_bars": 1, "trigger_on_closed_bar": False} if deep else {}
    desk = await Desk.open(engine, start_from="latest", **fusion)
    desks.append(desk)
    await desk.history()
    async with desk.running():
        await desk.bars(bar(5))
        (audit,) = await desk.concluded(1)
    assert is_intact(audit.encode())
    return audit


async def test_each_piece_is_kept_with_its_time_since_the_question() -> None:
    audit = await decided([80, HEAD, 140, TAIL, 30])
    assert audit.answer_chunks == [[80, len(HEAD)], [220, len(BUY)]]


async def test_only_the_pieces_of_the_second_answer_are_kept_when_the_first_was_bad() -> None:
    audit = await decided([50, NONSENSE], [70, HEAD, 10, TAIL])
    assert audit.answer == BUY
    assert audit.answer_chunks == [[120, len(HEAD)], [130, len(BUY)]]


async def test_the_thought_of_mode_deep_streams_before_its_answer() -> None:
    before = f"{THOUGHT}</think>\n\n"
    audit = await decided([50, THOUGHT], [20, NONSENSE], [30, HEAD, 40, TAIL], deep=True)
    assert audit.answer == before + BUY
    assert audit.answer_chunks == [[50, len(THOUGHT)], [100, len(before + HEAD)], [140, len(before + BUY)]]


async def test_a_trigger_whose_model_never_answered_has_no_pieces() -> None:
    audit = await decided([EngineError("engine_unavailable", "a scripted failure")])
    assert audit.answer is None
    assert audit.answer_chunks is None


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 900)), max_size=400))
def test_long_answers_keep_their_first_and_last_piece_and_a_bounded_number_of_others(steps: list[tuple[int, int]]) -> None:
    chunks, ms, characters = [], 0, 0
    for passed, written in steps:
        ms, characters = ms + passed, characters + written
        chunks.append((ms, characters))
    kept = coalesced(chunks)
    if not chunks:
        assert kept is None
        return
    assert kept is not None
    assert len(kept) == min(len(chunks), MAX_ANSWER_CHUNKS)
    assert {tuple(one) for one in kept} <= {(ms, min(characters, MAX_ANSWER_CHARACTERS)) for ms, characters in chunks}
    assert kept[0] == [chunks[0][0], chunks[0][1]]
    assert kept[-1] == [ms, min(characters, MAX_ANSWER_CHARACTERS)]
    assert all(one <= other for one, other in pairwise(kept))
