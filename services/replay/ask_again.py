"""Asks an engine the prompts of past decisions again, and compares its answers with those in the audit.

The prompt's token ids are the same; the answer may differ with another model, other weights or another batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Literal
from uuid import uuid4

import orjson

from services.core.clock import Clock
from services.fusion.decide.answer import Answer, AnswerError, AnswerReader, sampling
from services.fusion.decide.flash import flash_answer
from services.fusion.decide.thinking import think
from services.inference.engine import Chunk, Engine, EngineRequest
from services.replay.audit_trail import AuditEntry
from services.replay.prompt_rebuilder import PromptRebuilder, RebuiltPrompt

_DEADLINE_MS: Final = 120_000

Agreement = Literal["identical", "same decision", "different"]


@dataclass(frozen=True, slots=True)
class NewAnswer:
    """A new answer to an old prompt. `differences` lists fields with their old and new values."""

    entry: AuditEntry
    text: str
    agreement: Agreement
    differences: Sequence[str]


async def ask_again(entry: AuditEntry, rebuilt: RebuiltPrompt, rebuilder: PromptRebuilder, engine: Engine, clock: Clock) -> NewAnswer:
    """Ask `engine` the decision's question; raise EngineError."""
    record, prompt = entry.record, rebuilt.prompt
    request = EngineRequest(
        rid=uuid4().hex,
        affinity=record.symbol,
        mode=record.mode,
        input_ids=prompt.ids,
        sampling=sampling(rebuilder.settings.fusion, record.mode, record.trigger_id),
        deadline_ms=clock.now_ms() + _DEADLINE_MS,
        text=lambda: rebuilder.prompts.text(rebuilt.plan),
        view=rebuilt.plan.facts,
    )
    if record.mode == "flash":
        labels = rebuilder.prompts.labels
        scores = await engine.score(request, labels.ids)
        return compare(entry, flash_answer(scores.logprobs, labels, rebuilder.settings.fusion).text())
    text = ""
    if record.mode == "deep" and engine.capabilities.token_ids:
        fusion = rebuilder.settings.fusion
        thought, request = await think(
            engine, request, prompts=rebuilder.prompts, settings=fusion, clock=clock, seed_of=record.trigger_id, took=_nothing
        )
        text = thought.before_answer
    async with aclosing(engine.stream(request)) as chunks:
        async for chunk in chunks:
            text += chunk.text
    return compare(entry, text)


async def _nothing(chunk: Chunk) -> None:
    del chunk


def compare(entry: AuditEntry, text: str) -> NewAnswer:
    """Compare a new answer with the one in the audit."""
    before = entry.record.answer or ""
    if text == before:
        return NewAnswer(entry, text, "identical", ())
    if entry.record.mode == "flash":
        return _compare_flash(entry, text)
    thinking = entry.record.mode == "deep"
    then, now = _read(before, thinking=thinking), _read(text, thinking=thinking)
    if isinstance(then, str) or isinstance(now, str):
        return NewAnswer(entry, text, "different", [f"{then if isinstance(then, str) else 'an answer'} before, {_action(now)} now"])
    found = list(_differences(then, now))
    return NewAnswer(entry, text, "different" if found else "same decision", found)


def _compare_flash(entry: AuditEntry, text: str) -> NewAnswer:
    """Compare action and margin with those in the audit; another margin of the same action is the same decision."""
    try:
        then, now = orjson.loads(entry.record.answer or ""), orjson.loads(text)
    except orjson.JSONDecodeError:
        return NewAnswer(entry, text, "different", ["no answer before, an answer now"])
    found = [f"{name} {then.get(name)} -> {now.get(name)}" for name in ("action", "margin") if then.get(name) != now.get(name)]
    return NewAnswer(entry, text, "different" if then.get("action") != now.get("action") else "same decision", found)


def _read(text: str, *, thinking: bool) -> Answer | str:
    reader = AnswerReader(thinking=thinking)
    try:
        reader.feed(text)
        return reader.finish("stop")
    except AnswerError as error:
        return error.reason


def _action(answer: Answer | str) -> str:
    return answer if isinstance(answer, str) else answer.action


def _differences(then: Answer, now: Answer) -> Iterator[str]:
    before, after = then.model_dump(exclude={"rationale"}), now.model_dump(exclude={"rationale"})
    for name in dict.fromkeys([*before, *after]):
        if before.get(name) != after.get(name):
            yield f"{name} {before.get(name, 'none')} -> {after.get(name, 'none')}"
