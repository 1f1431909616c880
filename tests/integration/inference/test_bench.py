"""`aquiline engine bench` against the simulator and the local engine."""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from services.cli.engine import app

from . import local
from .conftest import simulated

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


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--url", "http://127.0.0.1:1"], "engine_unreachable"),
        (["--url", "http://127.0.0.1:1", "--kind", "vlm"], "expected one of"),
        (["--url", "127.0.0.1"], "expected an address such as"),
        (["--url", "http://127.0.0.1:1", "--at-once", "many"], "must be whole numbers"),
    ],
)
def test_what_cannot_be_measured_is_said_in_a_sentence(options: list[str], words: str) -> None:
    result = CliRunner().invoke(app, ["bench", *options])
    assert result.exit_code == 2
    assert words in result.output
    assert "Traceback" not in result.output
