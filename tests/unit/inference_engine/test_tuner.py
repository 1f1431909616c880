"""The tuner: which combinations are tried, what is measured, and what is kept; the simulator stands in for engines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from services.core.clock import SystemClock
from services.inference.engine import Engine, EngineError, Usage
from services.inference.launcher import presets
from services.inference.launcher.presets import LaunchError, Preset
from services.inference.launcher.process import EngineProcess
from services.inference.sglang_client import SGLangEngine
from services.inference.tuner import grid, measuring, prompts, report
from services.inference.tuner.sweep import Plan, Row, sweep
from tests.unit.inference_engine.test_serving import simulator

PRESET = presets.load("h100")


@given(
    steps=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    topks=st.lists(st.integers(1, 4), min_size=1, max_size=2),
    tokens=st.lists(st.integers(2, 12), min_size=1, max_size=3),
)
def test_every_combination_is_possible_and_tried_once(steps: list[int], topks: list[int], tokens: list[int]) -> None:
    made = grid.candidates(PRESET, steps=steps, topks=topks, draft_tokens=tokens, windows=[None, 4096], backends=["flashinfer"])
    assert made[0] == PRESET
    assert len({grid.label(one) for one in made}) == len(made)
    for one in made:
        speculation = one.speculation
        assert speculation.draft_tokens == speculation.steps + 1 if speculation.topk == 1 else speculation.draft_tokens > speculation.steps


def test_prompts_are_read_from_lines_and_cut(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_bytes(b"".join(orjson.dumps({"input_ids": list(range(count))}) + b"\n" for count in (50, 200)))
    read = prompts.read(file)
    assert [ids.size for ids in read] == [50, 200]
    (only,) = prompts.cut(read, 100, 20)
    assert only.prefix.tolist() == list(range(80))
    assert only.tail.tolist() == list(range(80, 100))
    with pytest.raises(LaunchError, match="no prompt has 300 tokens; the longest has 200"):
        prompts.cut(read, 300, 20)


@pytest.mark.parametrize("text", ["", "{}", '{"input_ids": "x"}', '{"input_ids": []}', '{"input_ids": [-1]}', "no json"])
def test_prompts_that_cannot_be_read_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "prompts.jsonl").write_text(text)
    with pytest.raises(LaunchError):
        prompts.read(tmp_path / "prompts.jsonl")


@given(count=st.integers(1, 5), tokens=st.integers(64, 5_000))
def test_made_up_prompts_share_their_beginning_and_nothing_else(count: int, tokens: int) -> None:
    made = prompts.synthetic(count, tokens)
    assert [ids.size for ids in made] == [tokens] * count
    shared = min(1_200, tokens // 2)
    assert all(np.array_equal(made[0][:shared], ids[:shared]) for ids in made)
    assert len({ids.tobytes() for ids in made}) == count


def test_a_step_s_time_does_not_depend_on_what_is_accepted() -> None:
    def timing(accepted: float) -> measuring.Timing:
        steps = 80 / accepted
        usage = Usage(prompt_tokens=100, output_tokens=81, cached_tokens=90, accept_length=accepted)
        return measuring.Timing(first_ms=50, total_ms=50 + 11 * steps, usage=usage)

    for accepted in (1.0, 2.5):
        found = measuring.summary(100, 1, [timing(accepted)])
        assert found.step_ms == pytest.approx(11)
        assert found.cached_share == pytest.approx(0.9)


@asynccontextmanager
async def simulated(_preset: Preset) -> AsyncIterator[Engine]:
    process = await EngineProcess.start(simulator())
    try:
        await process.wait_until_up(60)
        engine = SGLangEngine(process._url, SystemClock())
        yield engine
        await engine.close()
    finally:
        await process.stop()


async def test_a_sweep_measures_each_combination_and_puts_the_best_first(tmp_path: Path) -> None:
    slow = PRESET.model_copy(update={"title": "slow"})

    @asynccontextmanager
    async def start(preset: Preset) -> AsyncIterator[Engine]:
        if preset.title == "slow":
            raise LaunchError("the engine ended with status 1: out of memory")
        async with simulated(preset) as engine:
            yield engine

    said: list[str] = []
    plan = Plan(prompts.synthetic(2, 600), [300, 600], [1, 2], tail_tokens=32, answer_tokens=16, rounds=2)
    rows = await sweep([slow, PRESET], plan, start, out=tmp_path / "rows.json", say=said.append)
    best, failed = rows
    assert [(cell.length, cell.at_once, cell.calls) for cell in best.cells] == [(300, 1, 2), (300, 2, 4), (600, 1, 2), (600, 2, 4)]
    assert all(cell.cached_share is not None and cell.cached_share > 0.8 for cell in best.cells)
    assert failed.failure is not None
    assert failed.score is None
    kept = orjson.loads((tmp_path / "rows.json").read_bytes())
    assert [row["failure"] is None for row in kept] == [False, True]
    console = Console(width=400, record=True, file=(tmp_path / "table.txt").open("w"))
    console.print(report.table(rows))
    assert "out of memory" in console.export_text()
    assert any("300 tokens, 2 at once" in line for line in said)


async def test_an_engine_that_breaks_while_it_is_measured_is_a_failed_row(tmp_path: Path) -> None:
    class Broken(SGLangEngine):
        async def warm(self, rid: str, affinity: str, input_ids: np.ndarray[tuple[int], np.dtype[np.int32]]) -> Usage:
            del rid, affinity, input_ids
            raise EngineError("engine_broke", "gone")

    @asynccontextmanager
    async def start(_preset: Preset) -> AsyncIterator[Engine]:
        yield Broken("http://127.0.0.1:1", SystemClock())

    plan = Plan(prompts.synthetic(1, 300), [300], [1], tail_tokens=32)
    (row,) = await sweep([PRESET], plan, start, out=tmp_path / "rows.json", say=lambda _line: None)
    assert row.failure == "engine_broke: gone"


async def test_nothing_is_started_that_would_not_end_in_time(tmp_path: Path) -> None:
    said: list[str] = []
    plan = Plan(prompts.synthetic(1, 300), [300], [1], tail_tokens=32)
    rows = await sweep([PRESET, PRESET], plan, simulated, out=tmp_path / "rows.json", say=said.append, budget_s=0)
    assert rows == []
    assert ["not tried, the time is up" in line for line in said] == [True, True]


async def test_a_length_that_no_prompt_has_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="no prompt has 9,000 tokens"):
        await sweep([PRESET], Plan(prompts.synthetic(1, 300), [9_000], [1]), simulated, out=tmp_path / "x", say=lambda _line: None)


def test_a_plot_is_drawn_or_said_to_be_missing(tmp_path: Path) -> None:
    cell = measuring.Cell(8_192, 1, 5, 50, 400, 420, 230, 2.5, 11, 0.99)
    assert report.plot([Row(PRESET, [cell])], tmp_path / "plot.png") == (tmp_path / "plot.png").exists()
