"""`aquiline engine bench` against the simulator and the local engine."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from services.cli.engine import app
from services.inference.engine import Chunk, EngineRequest, Usage
from services.inference.needle import search
from services.inference.rules import RulesEngine

from . import local
from .conftest import CLOCK, TOKENIZER, simulated

MEASURED = ["first token, cold", "first token, cached but for 64 tokens", "decoding step", "one-token action", "decision"]


async def run(*options: str) -> str:
    result = await asyncio.to_thread(CliRunner().invoke, app, ["bench", *options])
    assert result.exit_code == 0, result.output
    return result.output


async def test_the_simulator_is_measured_as_table_plot_and_json(tmp_path: Path) -> None:
    async with simulated(time_scale=1.0) as (_, url):
        output = await run("--url", url, "--length", "8192", "--at-once", "1,2", "--rounds", "2", "--out", str(tmp_path))
    made = orjson.loads((tmp_path / "bench.json").read_bytes())
    rows = {(row["what"], row["at_once"]): row for row in made["rows"]}
    assert [what for what, _ in rows] == [*MEASURED, "decision"]
    assert (made["source"], made["prompt_tokens"]) == ("simulator", 8_192)
    assert rows[MEASURED[0], 1]["cached_share"] < 0.1
    assert rows[MEASURED[1], 1]["cached_share"] > 0.9
    assert rows["decision", 2]["calls"] == 4
    assert rows["decision", 2]["accept_length"] > 1
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert "decision" in output


async def test_the_local_engine_is_measured(tmp_path: Path) -> None:
    async with local.running(symbols=1, context_tokens=1_024) as server:
        options = ("--kind", "llamacpp", "--tokenizer-file", str(local.weights().tokenizer), "--length", "256", "--at-once", "1")
        await run("--url", server.url, *options, "--rounds", "1", "--out", str(tmp_path))
    made = orjson.loads((tmp_path / "bench.json").read_bytes())
    assert [row["what"] for row in made["rows"]] == MEASURED
    assert (made["source"], made["model"]) == ("llm", local.weights().model)
    assert made["rows"][1]["cached_share"] > 0.6
    assert all(row["median_ms"] > 0 for row in made["rows"])


async def test_a_fact_is_hidden_in_prompts_of_the_length_and_an_answer_without_it_is_not_found(tmp_path: Path) -> None:
    """The simulator answers by fixed rules, and so finds nothing."""
    async with simulated() as (_, url):
        output = await run("--url", url, "--needle", "--length", "3000", "--rounds", "2", "--out", str(tmp_path))
    made = orjson.loads((tmp_path / "needle.json").read_bytes())
    assert [row["depth"] for row in made["rows"]] == [0.1, 0.5, 0.9] * 2
    assert all(2_900 < row["prompt_tokens"] <= 3_000 for row in made["rows"])
    assert not any(row["found"] for row in made["rows"])
    assert all(row["cached_tokens"] < 100 for row in made["rows"])
    assert "no" in output


async def test_a_fact_that_the_engine_answers_with_is_found() -> None:
    """By an engine that looks for the note in the text: asked with another code and another place each time."""
    asked: list[str] = []

    class Reader(RulesEngine):
        async def stream(self, request: EngineRequest) -> AsyncGenerator[Chunk]:
            text = request.text()[1]
            asked.append(text)
            (code,) = re.findall(r"Note: the access code is (\d+)", text)
            yield Chunk(f"It is {code}.", usage=Usage(request.input_ids.size, 4))

    made = await search(Reader(CLOCK), lambda system, user: TOKENIZER.encode(system + user), length=1_000, rounds=1, say=print)
    assert [row.found for row in made.rows] == [True] * 3
    places = [text.index("Note:") / len(text) for text in asked]
    assert places == sorted(places)
    assert [round(place, 1) for place in places] == pytest.approx([0.1, 0.5, 0.9], abs=0.11)
    assert len(set(asked)) == 3
    with pytest.raises(ValueError, match="has no room for the question: give --length"):
        await search(Reader(CLOCK), lambda system, user: TOKENIZER.encode(system + user), length=60, rounds=1, say=print)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--url", "http://127.0.0.1:1"], "engine_unreachable"),
        (["--url", "http://127.0.0.1:1", "--kind", "vlm"], "expected one of"),
        (["--url", "127.0.0.1"], "expected an address such as"),
        (["--url", "http://127.0.0.1:1", "--at-once", "many"], "must be whole numbers"),
        (["--url", "http://127.0.0.1:1", "--needle", "--chat-template", "vicuna"], "chat_template"),
    ],
)
def test_what_cannot_be_measured_is_said_in_a_sentence(options: list[str], words: str) -> None:
    result = CliRunner().invoke(app, ["bench", *options])
    assert result.exit_code == 2
    assert words in result.output
    assert "Traceback" not in result.output
