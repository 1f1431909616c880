"""Rationales come after the signal: they hold no permit, are bounded, and in mode flash give way to decisions."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from schemas import Action, Outcome
from services.fusion.decide.answer import RATIONALE_TOKENS
from services.inference.engine import EngineError
from tests.unit.fusion.build import bar, tokenizer
from tests.unit.fusion.desk import Desk, ScriptedEngine

LINE = "buy 62 5 0 -12 25"
LIKELY_BUY = [-0.1, -3.0, -4.0, -4.0]


async def opened(engine: ScriptedEngine, **fusion: object) -> Desk:
    desk = await Desk.open(engine, None, start_from="latest", **fusion)
    await desk.history()
    return desk


def flash_engine(*scripts: list[str | asyncio.Event | EngineError]) -> ScriptedEngine:
    """Return an engine that says buy; of its scripts the calls for rationales are answered with."""
    engine = ScriptedEngine(*scripts)
    engine.logprobs = LIKELY_BUY
    return engine


async def test_a_line_is_a_signal_with_the_rationale_after_it_in_the_audit() -> None:
    desk = await opened(ScriptedEngine([LINE, "\na rise"]))
    async with desk.running():
        await desk.bars(bar(5, 101.0))
        (audit,) = await desk.concluded(1)
    (signal,) = await desk.signals()
    assert (signal.action, signal.conviction, signal.horizon_bars) == (Action.BUY, 0.62, 5)
    assert (signal.entry, signal.stop, signal.target) == ("101.00", "99.80", "103.50")
    assert audit.answer == f"{LINE}\na rise"
    (request,) = desk.engine.requests
    assert request.sampling.regex is not None
    assert "on the next one say why" in tokenizer().decode(request.input_ids)


async def test_without_rationales_none_is_asked_for_and_the_line_is_a_signal_when_it_ends() -> None:
    desk = await opened(ScriptedEngine([LINE[:-1], LINE[-1:]]), rationale="none")
    async with desk.running():
        await desk.bars(bar(5, 101.0))
        (audit,) = await desk.concluded(1)
    assert (audit.outcome, audit.action, audit.answer) == (Outcome.PUBLISHED, Action.BUY, LINE)
    assert "say why" not in tokenizer().decode(desk.engine.requests[0].input_ids)


@pytest.mark.parametrize("finish", ["length", "abort"])
async def test_a_line_that_was_cut_in_a_number_is_never_a_signal(finish: str) -> None:
    engine = ScriptedEngine([LINE[:-1]])
    engine.finish_reason = finish
    desk = await opened(engine, rationale="none", repair=False)
    async with desk.running():
        await desk.bars(bar(5, 101.0))
        await desk.concluded(1)
    assert await desk.outcomes() == [(Outcome.FAILED, "answer_cut_off")]
    assert await desk.signals() == []


async def test_a_line_carries_the_probabilities_of_its_first_word_and_its_own_conviction() -> None:
    engine = ScriptedEngine([LINE + "\n"])
    engine.logprobs = [-1.0, -1.0, -20.0, -20.0]
    desk = await opened(engine)
    async with desk.running():
        await desk.bars(bar(5, 101.0))
        await desk.concluded(1)
    (signal,) = await desk.signals()
    assert signal.conviction == 0.62
    assert signal.probabilities == pytest.approx({"buy": 0.5, "sell": 0.5, "exit": 0.0, "hold": 0.0}, abs=1e-3)


async def test_a_rationale_holds_neither_permit_nor_lane() -> None:
    rest = asyncio.Event()
    desk = await opened(ScriptedEngine([LINE + "\n", rest, "a rise"], ["hold 40 5\nno edge"]), permits=1)
    async with desk.running():
        await desk.bars(bar(5, 101.0))
        await desk.published(1)
        await desk.bars(bar(6, 101.5))
        first, second = await desk.published(2)
        assert len(await desk.audit()) <= 1
        rest.set()
        audits = await desk.concluded(2)
    assert (first.action, second.action) == (Action.BUY, Action.HOLD)
    assert second.as_of.market.offset > first.as_of.market.offset
    assert {audit.answer for audit in audits} >= {LINE + "\na rise"}


async def test_no_more_rationales_are_read_at_once_than_there_are_permits() -> None:
    rest = asyncio.Event()
    engine = ScriptedEngine([LINE + "\n", rest, "a rise"], ["hold 40 5\n", rest, "no edge"])
    desk = await opened(engine, permits=1)
    async with desk.running():
        await desk.bars(bar(5, 101.0))
        await desk.published(1)
        await desk.bars(bar(6, 101.5))
        (audit,) = await desk.concluded(1)
        rest.set()
        await desk.concluded(2)
    assert (audit.outcome, audit.action, audit.answer) == (Outcome.PUBLISHED, Action.HOLD, "hold 40 5\n")
    assert engine.aborted == [engine.requests[1].rid]


async def test_a_flash_signal_is_explained_by_a_second_call_of_low_priority() -> None:
    engine = flash_engine(["It ", "rises."])
    desk = await opened(engine, mode="flash")
    async with desk.running():
        await desk.bars(bar(5, 101.0))
        (audit,) = await desk.concluded(1)
    decided, explained = engine.requests
    assert (audit.outcome, audit.action, audit.output_tokens) == (Outcome.PUBLISHED, Action.BUY, 1)
    assert orjson.loads(audit.answer or "")["rationale"] == "It rises."
    assert (decided.background, explained.background) == (False, True)
    assert explained.sampling.max_new_tokens == RATIONALE_TOKENS
    assert explained.input_ids[: decided.input_ids.size].tolist() == decided.input_ids.tolist()
    assert tokenizer().decode(explained.input_ids[decided.input_ids.size :]).startswith("buy")


@pytest.mark.parametrize(
    ("logprobs", "fusion"),
    [(LIKELY_BUY, {"rationale": "none"}), ([-1.0, -1.01, -4.0, -4.0], {})],
    ids=["switched off", "nothing to explain"],
)
async def test_a_flash_signal_is_not_explained(logprobs: list[float], fusion: dict[str, object]) -> None:
    engine = ScriptedEngine(["never asked"])
    engine.logprobs = logprobs
    desk = await opened(engine, mode="flash", **fusion)
    async with desk.running():
        await desk.bars(bar(5, 101.0))
        (audit,) = await desk.concluded(1)
    assert audit.outcome is Outcome.PUBLISHED
    assert "rationale" not in orjson.loads(audit.answer or "")
    assert len(engine.requests) == 1


async def test_a_decision_ends_the_rationale_of_a_flash_signal() -> None:
    engine = flash_engine([asyncio.Event()])
    desk = await opened(engine, mode="flash")
    async with desk.running():
        await desk.bars(bar(5, 101.0))
        await desk.until(lambda: engine.running == 1)
        await desk.bars(bar(6, 101.5))
        (audit,) = await desk.concluded(1)
        assert (audit.outcome, audit.trigger.offset) == (Outcome.PUBLISHED, 5)
        assert "rationale" not in orjson.loads(audit.answer or "")
        assert engine.aborted == [engine.requests[1].rid]
        await desk.published(2)
        await desk.until(lambda: engine.running == 1)
        desk.clock.advance_to(desk.clock.now_ms() + 60_000)
        await desk.concluded(2)


async def test_a_rationale_that_fails_leaves_the_signal_as_it_is() -> None:
    desk = await opened(flash_engine([EngineError("engine_broke", "gone")]), mode="flash")
    async with desk.running():
        await desk.bars(bar(5, 101.0))
        (audit,) = await desk.concluded(1)
    assert (audit.outcome, audit.reason, audit.action) == (Outcome.PUBLISHED, None, Action.BUY)
