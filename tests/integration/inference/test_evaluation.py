"""An evaluation that was interrupted asks an engine the other prompts alone."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest

from services.core.settings import EngineSettings
from services.training.answers_so_far import AnswersSoFar, part_of
from services.training.evaluation import Asked, ask_engine
from services.training.examples import Example
from tests.unit.training.build import example

from .conftest import FACTS, TOKENIZER, simulated, until

PROMPTS = 12


def prompts() -> list[Example]:
    """Return test prompts that differ in their first token, so that none has the answer of another by its place alone."""
    made = []
    for number in range(PROMPTS):
        ids = np.concatenate([[300 + number], TOKENIZER.encode(FACTS.replace("60", str(40 + number))), [301]]).astype(np.int32)
        taught = np.arange(ids.size) == ids.size - 1
        made.append(replace(example(number, part="test"), ids=ids, taught=taught, decision=taught))
    return made


async def ask(url: str, results: Path | None, *, grammar: bool = True) -> list[Asked]:
    settings = EngineSettings(kind="sglang", urls=[url])
    return await ask_engine(settings, prompts(), results=results, at_once=1, grammar=grammar, progress=lambda _line: None)


async def test_what_was_answered_before_an_interruption_is_not_asked_again(tmp_path: Path) -> None:
    results = tmp_path / "figures.json"
    part = part_of(results)
    async with simulated(time_scale=1.0) as (simulator, url):
        whole = await ask(url, None)
        asked = simulator.totals.calls
        running = asyncio.create_task(ask(url, results))
        await until(lambda: part.is_file() and part.read_bytes().count(b"\n") > 4)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await until(lambda: not simulator._flights)  # the call that was broken off has been counted
        kept = part.read_bytes().count(b"\n") - 1
        part.write_bytes(part.read_bytes() + b'{"id": "torn')
        before = simulator.totals.calls
        continued = await ask(url, results)
        assert simulator.totals.calls - before == PROMPTS - kept
    assert asked == PROMPTS
    assert [(one.text, one.answer, one.error) for one in continued] == [(one.text, one.answer, one.error) for one in whole]
    assert all(one.answer is not None for one in whole)


async def test_answers_to_another_question_are_not_continued(tmp_path: Path) -> None:
    results = tmp_path / "figures.json"
    async with simulated() as (_, url):
        await ask(url, results)
        with pytest.raises(ValueError, match="grammar True, not False"):
            await ask(url, results, grammar=False)


def test_a_file_that_holds_something_else_is_refused_and_stays(tmp_path: Path) -> None:
    results = tmp_path / "figures.json"
    for content in (b"[]\n", b"notes\n", orjson.dumps({"model": "m"}) + b"\n{}\n"):
        part_of(results).write_bytes(content)
        with pytest.raises(ValueError, match="remove it"):
            AnswersSoFar(results, {"model": "m"})
        assert part_of(results).read_bytes() == content
